//! Export in the layout of C2SP tlog-tiles: what a monitor or an auditor reads as plain files.
//!
//! `checkpoint`, `tile/<level>/<number>`, `tile/entries/<number>`, with `.p/<width>` behind the
//! number of a tile that is not full. Numbers are written in groups of three digits, all but the
//! last with an `x` before them. An entry bundle is 256 events, each with its length before it
//! (16 bits, big endian).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tlog_tiles::record_hash;

use crate::checkpoint::SignedCheckpoint;
use crate::durable::{create_dir, write_file};
use crate::proof::ProofError;
use crate::reader::{ReadError, Reader};
use crate::tree::{TILE, Tiles};

/// Says why the tiles cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The stored tree does not fit the checkpoint.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The folder holds the tiles of another log.
    #[error("{} belongs to another log: name an empty folder", path.display())]
    Other {
        /// Tile that differs.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Returns the path of a tile: `width` of its 256 entries are there.
fn tile_path(kind: &str, number: u64, width: u64) -> String {
    let mut text = format!("{:03}", number % 1000);
    let mut rest = number / 1000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1000);
        rest /= 1000;
    }
    let partial = if width == TILE { String::new() } else { format!(".p/{width}") };
    format!("tile/{kind}/{text}{partial}")
}

/// What an export wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Events that the exported checkpoint covers.
    pub size: u64,
    /// Files that were written; full tiles that were there already are left alone.
    pub files: u64,
}

impl Reader {
    /// Writes tiles, entry bundles and the checkpoint into `dir`, the checkpoint last, so that
    /// whoever reads it finds everything that it covers. A second export adds what is new.
    ///
    /// # Errors
    /// When the stored tree does not fit the checkpoint, the journal cannot be read, or the
    /// folder cannot be written.
    pub fn export_tiles(
        &self,
        dir: &Path,
        signed: &SignedCheckpoint,
    ) -> Result<Exported, ExportError> {
        let tiles = self.tiles()?;
        let root = tiles.root_at(signed.size).map_err(ProofError::from)?;
        if root != signed.root {
            let what = "it does not come to the signed root".to_owned();
            return Err(ProofError::Tree { what }.into());
        }
        if let Some((path, n)) = tiles.wrong_hash().map_err(ProofError::from)? {
            let what = format!("hash {n} of {} is wrong", path.display());
            return Err(ProofError::Tree { what }.into());
        }
        let mut out = Out { dir, files: 0 };
        let mut count = signed.size;
        for level in 0.. {
            if count == 0 {
                break;
            }
            out.level(&tiles, level, count)?;
            count /= TILE;
        }
        out.entries(self, &tiles, signed.size)?;
        out.write("checkpoint", signed.note.as_bytes())?;
        Ok(Exported { size: signed.size, files: out.files })
    }
}

/// The folder that is written.
struct Out<'a> {
    dir: &'a Path,
    files: u64,
}

impl Out<'_> {
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let path = self.dir.join(name);
        let parent = path.parent().unwrap_or(self.dir);
        create_dir(parent)
            .and_then(|()| write_file(&path, bytes, 0o644))
            .map_err(|source| ExportError::Io { path: path.clone(), source })?;
        self.files += 1;
        Ok(())
    }

    /// Tells whether a tile is there whole.
    fn has(&self, name: &str, width: u64) -> bool {
        width == TILE && fs::metadata(self.dir.join(name)).is_ok_and(|file| file.len() > 0)
    }

    /// Writes the tiles over the first `count` hashes of a level.
    fn level(&mut self, tiles: &Tiles, level: u8, count: u64) -> Result<(), ExportError> {
        for number in 0..count.div_ceil(TILE) {
            let width = TILE.min(count - number * TILE);
            let name = tile_path(&level.to_string(), number, width);
            let hashes = tiles.hashes(level, number * TILE, width).map_err(ProofError::from)?;
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
            if !self.has(&name, width) {
                self.write(&name, &bytes)?;
                continue;
            }
            let path = self.dir.join(&name);
            let there = fs::read(&path);
            match there {
                Ok(there) if there == bytes => {}
                Ok(_) => return Err(ExportError::Other { path }),
                Err(source) => return Err(ExportError::Io { path, source }),
            }
        }
        Ok(())
    }

    /// Writes the bundles of the first `count` events.
    fn entries(&mut self, reader: &Reader, tiles: &Tiles, count: u64) -> Result<(), ExportError> {
        for number in 0..count.div_ceil(TILE) {
            let width = TILE.min(count - number * TILE);
            let name = tile_path("entries", number, width);
            if self.has(&name, width) {
                continue;
            }
            let leaves = tiles.hashes(0, number * TILE, width).map_err(ProofError::from)?;
            let mut frames = reader.frames(number * TILE);
            let mut bundle = Vec::new();
            for leaf in leaves {
                let event = frames.next_frame()?.map(|frame| frame.event).unwrap_or_default();
                if record_hash(&event) != leaf {
                    let what = "journal and tree hold different events".to_owned();
                    return Err(ProofError::Tree { what }.into());
                }
                // No event is longer than 65,535 bytes.
                let length = u16::try_from(event.len()).unwrap_or(u16::MAX);
                bundle.extend_from_slice(&length.to_be_bytes());
                bundle.extend_from_slice(&event);
            }
            self.write(&name, &bundle)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the specification's examples.
    #[test]
    fn tiles_are_named_as_the_layout_says() {
        assert_eq!(tile_path("0", 1_234_067, TILE), "tile/0/x001/x234/067");
        assert_eq!(tile_path("entries", 0, 5), "tile/entries/000.p/5");
        assert_eq!(tile_path("1", 1000, 255), "tile/1/x001/000.p/255");
    }
}
