// What the programs about memory have in common: checks, and numbers out of /proc and /sys.
#ifndef CHECKS_H
#define CHECKS_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures;

static inline void check(int ok, const char *what)
{
    printf("%s %s\n", ok ? "ok" : "not ok", what);
    failures += !ok;
}

// All of a text file, until the next call.
static inline const char *contents(const char *path)
{
    static char text[1 << 17];
    size_t len = 0;
    int fd = open(path, O_RDONLY);
    for (ssize_t more; fd >= 0 && (more = read(fd, text + len, sizeof text - 1 - len)) > 0;)
        len += (size_t)more;
    if (fd < 0 || len == 0) {
        perror(path);
        exit(2);
    }
    close(fd);
    text[len] = 0;
    return text;
}

// The number behind a label in a file; the file's first one without.
static inline unsigned long number(const char *path, const char *label)
{
    const char *at = strstr(contents(path), label);
    if (!at) {
        fprintf(stderr, "%s has no %s\n", path, label);
        exit(2);
    }
    return strtoul(at + strlen(label), NULL, 10);
}

// The word number `index` of a file of words.
static inline uint64_t word(const char *path, uint64_t index)
{
    uint64_t value = 0;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || pread(fd, &value, sizeof value, (off_t)(index * 8)) != sizeof value) {
        perror(path);
        exit(2);
    }
    close(fd);
    return value;
}

#endif
