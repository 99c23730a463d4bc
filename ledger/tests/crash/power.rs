//! Power cuts: a file system in an image is copied while the writer stands still in the middle of
//! its work, and the copy is mounted as a machine would mount its disk after a cut.
//!
//! It models a device that keeps every write that it completed; what the system had not written
//! by then is lost. Needs root, loop devices and ext4; where they are missing it says so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ledger::Blobs;

use super::writer::{Writer, check_all};
use super::{skipped, times};

/// Bytes of an image.
const IMAGE: u64 = 256 * 1024 * 1024;

/// Runs a tool of the system.
fn tool(name: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(name).args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A mounted image, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn mount(image: &Path, at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        tool("mount", &[Path::new("-o"), Path::new("loop"), image, at])?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A process that was just killed may hold it for a moment.
        for _ in 0..50 {
            if tool("umount", &[&self.0]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Makes an image with an empty file system.
fn image(path: &Path) -> Result<(), String> {
    let file = File::create(path).map_err(|error| error.to_string())?;
    file.set_len(IMAGE).map_err(|error| error.to_string())?;
    tool("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), path])
}

/// Cuts the power once. `aged` lets the ledger grow and be synced before.
fn cut(dir: &Path, group: u64, aged: bool, pause: Duration) -> Result<u64, String> {
    let (disk, copy) = (dir.join("disk.img"), dir.join("copy.img"));
    image(&disk)?;
    let mounted = Mounted::mount(&disk, &dir.join("disk"))?;
    let notebook = mounted.0.join("notebook");
    if aged {
        let writer = Writer::start(&notebook, group);
        std::thread::sleep(Duration::from_millis(300));
        writer.kill();
        tool("sync", &[])?;
    }
    let writer = Writer::start(&notebook, group);
    std::thread::sleep(pause);
    let acknowledged = writer.freeze();
    tool("cp", &[Path::new("--sparse=always"), &disk, &copy])?;
    drop(writer);
    drop(mounted);
    let mounted = Mounted::mount(&copy, &dir.join("copy"))?;
    let notebook = mounted.0.join("notebook");
    check_named_bodies(&notebook);
    check_all(&notebook, acknowledged);
    Ok(acknowledged)
}

/// What has a body's name has all of its bytes, also where no event names it yet.
fn check_named_bodies(notebook: &Path) {
    let blobs = Blobs::open(notebook);
    // Where nothing was stored before the cut.
    let Ok(shards) = fs::read_dir(notebook.join("blobs")) else { return };
    for shard in shards.map(|shard| shard.unwrap()).filter(|shard| shard.file_name() != "tmp") {
        for file in fs::read_dir(shard.path()).unwrap().map(|file| file.unwrap()) {
            let name =
                [shard.file_name(), file.file_name()].map(|part| part.into_string().unwrap());
            blobs.check(&name.concat().parse().unwrap()).unwrap();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    // Tried once without a ledger: what fails here is the machine's, not ours.
    let disk = dir.path().join("disk.img");
    let usable = image(&disk).and_then(|()| Mounted::mount(&disk, &dir.path().join("disk")));
    match usable {
        Ok(mounted) => drop(mounted),
        Err(why) => {
            return skipped("power cuts need root, loop devices and ext4", &why);
        }
    }
    let cuts = times("LEDGER_POWER_CUTS", 4);
    let mut total = 0;
    for n in 0..cuts {
        // Of 10 events one has a body: those of the larger groups are synced together.
        let group = [1, 100, 200, 400][n as usize % 4];
        let pause = Duration::from_millis(150 + n * 37 % 600);
        let kept = cut(dir.path(), group, (n / 2 + n / 4) % 2 == 1, pause).unwrap();
        println!("cut {n}: {kept} acknowledged events, all there");
        total += kept;
    }
    println!("{cuts} of {cuts} power cuts: {total} acknowledged events, none lost");
}
