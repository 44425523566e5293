//! Memory objects.
