//! Stored tiles of the Merkle tree over all events.
//!
//! A tile holds 256 hashes of one level, as in C2SP tlog-tiles. All tiles of a level stand behind
//! each other in one file, `<level>.tiles`: hash *n* of tile level *L* (the root over 256^L events)
//! begins at byte `32 * n`. Only hashes of complete subtrees are stored. The files can be rebuilt
//! from the journal; whoever takes something from them checks it against a root.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tlog_tiles::{Hash, HashReader, node_hash, split_stored_hash_index};

use crate::device::{Device, Disk};
use crate::id::Digest;
use crate::merkle::Frontier;

/// Hashes in a full tile.
pub(crate) const TILE: u64 = 256;
/// Levels of single hashes that a level of tiles spans.
const HEIGHT: u8 = 8;
/// Tile levels that 64-bit event numbers can need.
const LEVELS: u8 = 8;
/// Bytes of a hash.
const WIDTH: u64 = 32;
/// Tiles whose inner nodes are kept.
const KEPT: usize = 64;

/// Says why the tiles cannot answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// The files do not reach that far.
    #[error("{}: hash {n} is not there", path.display())]
    Short {
        /// File of the level.
        path: PathBuf,
        /// Hash asked for.
        n: u64,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File of the level.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The files of one level.
#[derive(Debug)]
struct Level {
    path: PathBuf,
    file: File,
    /// Hashes in it.
    size: u64,
}

/// All nodes of a full tile: its 256 hashes, then 128 over pairs, and so on up to its root.
type Nodes = Arc<Vec<Hash>>;

/// The stored tiles.
#[derive(Debug)]
pub(crate) struct Tiles {
    dir: PathBuf,
    device: Arc<dyn Device>,
    levels: Vec<Level>,
    /// Inner nodes of tiles that were asked for, by level and number.
    kept: Mutex<HashMap<(u8, u64), Nodes>>,
}

impl Tiles {
    /// Opens the tiles in `dir` for writing, making them where there are none.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let mut tiles = Self::with(dir, Vec::new());
        for level in 0..LEVELS {
            if level > 0 && !tiles.path(level).exists() {
                break;
            }
            tiles.add_level()?;
        }
        Ok(tiles)
    }

    /// Opens the tiles in `dir` for reading.
    pub(crate) fn open_read_only(dir: &Path) -> io::Result<Self> {
        let mut tiles = Self::with(dir, Vec::new());
        for level in 0..LEVELS {
            let path = tiles.path(level);
            if level > 0 && !path.exists() {
                break;
            }
            let file = File::open(&path)?;
            let size = file.metadata()?.len() / WIDTH;
            tiles.levels.push(Level { path, file, size });
        }
        Ok(tiles)
    }

    /// Writes to a device from here on.
    pub(crate) fn on(self, device: Arc<dyn Device>) -> Self {
        Self { device, ..self }
    }

    /// Returns how many leaves a stored tree has, without opening it; 0 where there is none.
    pub(crate) fn leaves(dir: &Path) -> u64 {
        fs::metadata(dir.join("0.tiles")).map_or(0, |file| file.len() / WIDTH)
    }

    fn with(dir: &Path, levels: Vec<Level>) -> Self {
        let (dir, device) = (dir.to_owned(), Arc::new(Disk));
        Self { dir, device, levels, kept: Mutex::default() }
    }

    fn path(&self, level: u8) -> PathBuf {
        self.dir.join(format!("{level}.tiles"))
    }

    fn add_level(&mut self) -> io::Result<()> {
        let path = self.path(u8::try_from(self.levels.len()).unwrap_or(LEVELS));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        let size = file.metadata()?.len() / WIDTH;
        self.levels.push(Level { path, file, size });
        Ok(())
    }

    /// Returns how many leaves there are.
    pub(crate) fn size(&self) -> u64 {
        self.levels.first().map_or(0, |level| level.size)
    }

    /// Adds leaves, and the hashes over tiles that they complete. Nothing is synced.
    pub(crate) fn append(&mut self, leaves: &[Hash]) -> io::Result<()> {
        let mut hashes = leaves.to_vec();
        for index in 0..usize::from(LEVELS) {
            if hashes.is_empty() {
                break;
            }
            if index == self.levels.len() {
                self.add_level()?;
            }
            let Some(level) = self.levels.get_mut(index) else { break };
            let before = level.size / TILE;
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
            self.device.write(&level.file, &bytes, level.size * WIDTH)?;
            level.size += hashes.len() as u64;
            hashes.clear();
            for tile in before..level.size / TILE {
                hashes.push(root_of(&level.read(tile * TILE, TILE).map_err(io::Error::other)?));
            }
        }
        Ok(())
    }

    /// Cuts the tree to its first `size` leaves.
    pub(crate) fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut keep = size;
        for level in &mut self.levels {
            // Also what is no whole hash goes.
            level.size = level.size.min(keep);
            level.file.set_len(level.size * WIDTH)?;
            keep /= TILE;
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// Makes everything added durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.levels.iter().try_for_each(|level| self.device.sync(&level.file))?;
        self.device.sync_dir(&self.dir)
    }

    /// Takes up the right edge of the tree over the first `size` events.
    pub(crate) fn frontier_at(&self, size: u64) -> Result<Frontier, TreeError> {
        let mut peaks = Vec::new();
        let mut edges = Vec::new();
        let mut rest = size;
        while rest > 0 {
            edges.push(rest);
            rest /= TILE;
        }
        for (level, &count) in edges.iter().enumerate().rev() {
            let level = self.level(level)?;
            let hashes = level.read(count - count % TILE, count % TILE)?;
            let mut hashes = hashes.as_slice();
            // The largest subtrees stand first: one for each bit of the number of hashes.
            for bit in (0..HEIGHT).rev().map(|bit| 1_usize << bit) {
                if hashes.len() & bit != 0
                    && let Some((subtree, behind)) = hashes.split_at_checked(bit)
                {
                    peaks.push(root_of(subtree));
                    hashes = behind;
                }
            }
        }
        Ok(Frontier::resume(size, peaks))
    }

    /// Returns the root over the first `size` events.
    pub(crate) fn root_at(&self, size: u64) -> Result<Digest, TreeError> {
        Ok(self.frontier_at(size)?.root())
    }

    /// Calls `visit` with each of the first `size` leaves.
    pub(crate) fn visit_leaves(
        &self,
        size: u64,
        mut visit: impl FnMut(u64, Hash),
    ) -> Result<(), TreeError> {
        let level = self.level(0)?;
        let mut at = 0;
        while at < size {
            let leaves = level.read(at, (size - at).min(TILE * 64))?;
            for leaf in leaves {
                visit(at, leaf);
                at += 1;
            }
        }
        Ok(())
    }

    /// Finds the first hash of the upper levels that is not the one over its tile below: the file
    /// and the number of the hash in it.
    pub(crate) fn wrong_hash(&self) -> Result<Option<(PathBuf, u64)>, TreeError> {
        for (below, above) in self.levels.iter().zip(self.levels.iter().skip(1)) {
            for n in 0..above.size {
                let tile = below.read(n * TILE, TILE)?;
                if above.read(n, 1)? != [root_of(&tile)] {
                    return Ok(Some((above.path.clone(), n)));
                }
            }
        }
        Ok(None)
    }

    /// Returns hashes of a tile level, for export.
    pub(crate) fn hashes(&self, level: u8, from: u64, count: u64) -> Result<Vec<Hash>, TreeError> {
        self.level(usize::from(level))?.read(from, count)
    }

    fn level(&self, level: usize) -> Result<&Level, TreeError> {
        self.levels.get(level).ok_or_else(|| TreeError::Short {
            path: self.path(u8::try_from(level).unwrap_or(LEVELS)),
            n: 0,
        })
    }

    /// Returns the node at `level` (0: leaves) and place `n` of its level.
    fn node(&self, level: u8, n: u64) -> Result<Hash, TreeError> {
        let (tile_level, inner) = (level / HEIGHT, level % HEIGHT);
        let stored = self.level(usize::from(tile_level))?;
        let first = n << inner;
        let tile = first / TILE;
        if (tile + 1) * TILE > stored.size || inner == 0 {
            // Of a tile that still grows, or a hash that is stored as it is.
            return Ok(root_of(&stored.read(first, 1 << inner)?));
        }
        let nodes = self.expanded(tile_level, tile)?;
        // Behind the 256 hashes stand 128 over pairs, and so on.
        let row = 2 * TILE - ((2 * TILE) >> inner);
        let place = usize::try_from(row + n % (TILE >> inner)).unwrap_or(usize::MAX);
        let missing = || TreeError::Short { path: stored.path.clone(), n: first };
        nodes.get(place).copied().ok_or_else(missing)
    }

    /// Returns all nodes of a full tile.
    fn expanded(&self, level: u8, tile: u64) -> Result<Nodes, TreeError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nodes) = kept().get(&(level, tile)) {
            return Ok(Arc::clone(nodes));
        }
        let mut nodes = self.level(usize::from(level))?.read(tile * TILE, TILE)?;
        nodes.reserve_exact(nodes.len());
        let mut row = 0..nodes.len();
        while row.len() > 1 {
            let next = nodes.len();
            for at in row.step_by(2) {
                if let Some(&[left, right]) = nodes.get(at..at + 2) {
                    nodes.push(node_hash(left, right));
                }
            }
            row = next..nodes.len();
        }
        let nodes = Arc::new(nodes);
        let mut kept = kept();
        if kept.len() >= KEPT {
            // The few tiles of the upper levels come back soon; the many below do not.
            kept.retain(|(level, _), _| *level > 0);
        }
        kept.insert((level, tile), Arc::clone(&nodes));
        Ok(nodes)
    }
}

impl HashReader for Tiles {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let found = indexes.iter().map(|&index| {
            let (level, n) = split_stored_hash_index(index);
            self.node(level, n).map_err(|_| tlog_tiles::Error::IndexesNotInTree)
        });
        found.collect()
    }
}

impl Level {
    /// Reads `count` hashes from number `from` on.
    fn read(&self, from: u64, count: u64) -> Result<Vec<Hash>, TreeError> {
        let short = || TreeError::Short { path: self.path.clone(), n: from };
        let end = from.checked_add(count).ok_or_else(short)?;
        if end > self.size {
            return Err(short());
        }
        let length = usize::try_from(count * WIDTH).map_err(|_| short())?;
        let mut bytes = vec![0_u8; length];
        self.file
            .read_exact_at(&mut bytes, from * WIDTH)
            .map_err(|source| TreeError::Io { path: self.path.clone(), source })?;
        Ok(bytes.as_chunks::<32>().0.iter().map(|hash| Hash(*hash)).collect())
    }
}

/// Returns the root over hashes whose number is a power of two.
fn root_of(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|&[left, right]| node_hash(left, right)).collect();
    }
    row.first().copied().unwrap_or(tlog_tiles::EMPTY_HASH)
}

#[cfg(test)]
mod tests;
