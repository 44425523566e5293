//! Disk images: the kernel and the `bootloader` crate's stages in front of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bootloader::{BootConfig, DiskImageBuilder};
use clap::Args;

use crate::bios_disk;
use crate::qemu::Firmware;

/// Arguments of `boot image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// The kernel, an ELF file (preferably stripped: BIOS reads it slowly)
    #[arg(long)]
    kernel: PathBuf,
    /// Where the images go
    #[arg(long, default_value = "build/images")]
    out: PathBuf,
}

/// The image that `firmware` boots from, in the directory `images`.
pub fn path(images: &Path, firmware: Firmware) -> PathBuf {
    images.join(match firmware {
        Firmware::Bios => "bios.img",
        Firmware::Uefi => "uefi.img",
    })
}

/// Builds both images. An image is replaced only once it is complete, so a
/// QEMU that is running from the old one is not disturbed.
pub fn build(args: &ImageArgs) -> anyhow::Result<()> {
    let kernel = &args.kernel;
    let magic = fs::read(kernel).with_context(|| format!("cannot read the kernel {}", kernel.display()))?;
    if !magic.starts_with(b"\x7fELF") {
        bail!("the kernel {} is not an ELF file", kernel.display());
    }
    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;

    let mut config = BootConfig::default();
    // The serial ports are the program's console and the kernel's log.
    config.serial_logging = false;
    // Nobody looks at the screen, and drawing text on it takes time.
    config.frame_buffer_logging = false;

    let mut builder = DiskImageBuilder::new(kernel.clone());
    builder.set_boot_config(&config);
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let target = path(&args.out, firmware);
        let new = target.with_extension("img.new");
        match firmware {
            Firmware::Bios => builder.create_bios_image(&new).and_then(|()| bios_disk::coarsen(&new)),
            Firmware::Uefi => builder.create_uefi_image(&new),
        }
        .with_context(|| format!("cannot build {}", target.display()))?;
        fs::rename(&new, &target).with_context(|| format!("cannot replace {}", target.display()))?;
    }
    Ok(())
}
