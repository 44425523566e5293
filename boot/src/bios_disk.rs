//! Makes a BIOS image quick to boot.
//!
//! `bootloader` puts the kernel into a FAT file system with clusters of one or
//! two sectors, and its second stage reads 16 KiB for each cluster, whatever
//! the cluster's size, and once more the table to find the next one. With
//! clusters of 32 KiB the firmware has some thirty times less to read, which
//! is seconds for each boot in an emulator.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, ensure};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

const SECTOR_SIZE: usize = 512;

/// Bytes of a cluster: the largest that FAT knows.
const CLUSTER_SIZE: u32 = 32 * 1024;

/// What the file system needs beside the contents of the files: its tables, and
/// a part of a cluster for each of a handful of files.
const SLACK: usize = 512 * 1024;

/// Where the partition table has the entry of the FAT partition, the second one.
const PARTITION_ENTRY: usize = 0x1be + 16;

/// Replaces the FAT file system in the disk image by one with the same files
/// and large clusters.
pub fn coarsen(image: &Path) -> anyhow::Result<()> {
    let mut disk = fs::read(image)?;
    let partition = partition(&disk).context("the BIOS image has no boot partition")?;
    let file_system = rebuild(&disk[partition.clone()])?;
    set_partition_size(&mut disk, file_system.len());
    disk.truncate(partition.start);
    disk.extend_from_slice(&file_system);
    fs::write(image, disk)?;
    Ok(())
}

/// The bytes of the FAT partition, which is the last one on the disk.
fn partition(disk: &[u8]) -> Option<Range<usize>> {
    let field = |offset| {
        let bytes = disk.get(PARTITION_ENTRY + offset..)?.first_chunk()?;
        (u32::from_le_bytes(*bytes) as usize).checked_mul(SECTOR_SIZE)
    };
    let start = field(8)?;
    let range = start..start.checked_add(field(12)?)?;
    (!range.is_empty() && range.end <= disk.len()).then_some(range)
}

fn set_partition_size(disk: &mut [u8], bytes: usize) {
    let sectors = (bytes / SECTOR_SIZE) as u32;
    disk[PARTITION_ENTRY + 12..][..4].copy_from_slice(&sectors.to_le_bytes());
}

/// A file system with the same files, which must all be in the root directory.
fn rebuild(old: &[u8]) -> anyhow::Result<Vec<u8>> {
    let old = FileSystem::new(Cursor::new(old.to_vec()), FsOptions::new())?;
    let mut files = Vec::new();
    for entry in old.root_dir().iter() {
        let entry = entry?;
        ensure!(entry.is_file(), "the boot partition has a directory {}", entry.file_name());
        let mut contents = Vec::new();
        entry.to_file().read_to_end(&mut contents)?;
        files.push((entry.file_name(), contents));
    }

    let contents: usize = files.iter().map(|(_, contents)| contents.len()).sum();
    let mut new = Cursor::new(vec![0; (contents + SLACK).next_multiple_of(SECTOR_SIZE)]);
    fatfs::format_volume(&mut new, FormatVolumeOptions::new().bytes_per_cluster(CLUSTER_SIZE))?;
    let volume = FileSystem::new(&mut new, FsOptions::new())?;
    for (name, contents) in files {
        volume.root_dir().create_file(&name)?.write_all(&contents)?;
    }
    volume.unmount()?;
    Ok(new.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with one sector before a file system with the given files.
    fn disk(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut volume = Cursor::new(vec![0; 2 << 20]);
        fatfs::format_volume(&mut volume, FormatVolumeOptions::new()).unwrap();
        let file_system = FileSystem::new(&mut volume, FsOptions::new()).unwrap();
        for (name, contents) in files {
            file_system.root_dir().create_file(name).unwrap().write_all(contents).unwrap();
        }
        file_system.unmount().unwrap();
        let mut disk = vec![0; SECTOR_SIZE];
        disk[PARTITION_ENTRY + 8..][..4].copy_from_slice(&1u32.to_le_bytes());
        set_partition_size(&mut disk, volume.get_ref().len());
        disk.extend(volume.into_inner());
        disk
    }

    #[test]
    fn files_survive_and_clusters_are_large() {
        let large: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
        let files: [(&str, &[u8]); 3] = [("kernel-x86_64", &large), ("boot.json", b"{}"), ("empty", b"")];
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk");
        fs::write(&image, disk(&files)).unwrap();
        coarsen(&image).unwrap();

        let disk = fs::read(&image).unwrap();
        let partition = partition(&disk).unwrap();
        assert_eq!(partition.end, disk.len());
        let volume = FileSystem::new(Cursor::new(disk[partition].to_vec()), FsOptions::new()).unwrap();
        assert_eq!(volume.cluster_size(), CLUSTER_SIZE);
        for (name, contents) in files {
            let mut found = Vec::new();
            volume.root_dir().open_file(name).unwrap().read_to_end(&mut found).unwrap();
            assert!(found == contents, "{name}");
        }
        assert_eq!(volume.root_dir().iter().count(), files.len());
    }

    #[test]
    fn a_disk_without_a_partition_is_refused() {
        assert_eq!(partition(&[0; 100]), None);
        assert_eq!(partition(&[0; 4096]), None);
        let mut beyond = disk(&[]);
        beyond.truncate(4096);
        assert_eq!(partition(&beyond), None);
    }
}
