//! placeholder until the tree module comes
use crate::id::Digest;
use crate::merkle::Frontier;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tlog_tiles::Hash;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    #[error("short")]
    Short,
    #[error("{0}")]
    Io(#[from] io::Error),
}
pub(crate) struct Tiles {
    file: File,
    size: u64,
}
impl Tiles {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("0.tiles"))?;
        let size = file.metadata()?.len() / 32;
        Ok(Self { file, size })
    }
    pub(crate) fn open_read_only(dir: &Path) -> io::Result<Self> {
        let file = File::open(dir.join("0.tiles"))?;
        let size = file.metadata()?.len() / 32;
        Ok(Self { file, size })
    }
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
    pub(crate) fn append(&mut self, leaves: &[Hash]) -> io::Result<()> {
        let b: Vec<u8> = leaves.iter().flat_map(|h| h.0).collect();
        self.file.write_all_at(&b, self.size * 32)?;
        self.size += leaves.len() as u64;
        Ok(())
    }
    pub(crate) fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.size = self.size.min(size);
        self.file.set_len(self.size * 32)
    }
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
    pub(crate) fn visit_leaves(
        &self,
        size: u64,
        mut visit: impl FnMut(u64, Hash),
    ) -> Result<(), TreeError> {
        let mut h = [0_u8; 32];
        for n in 0..size {
            self.file.read_exact_at(&mut h, n * 32)?;
            visit(n, Hash(h));
        }
        Ok(())
    }
    pub(crate) fn frontier_at(&self, size: u64) -> Result<Frontier, TreeError> {
        if size > self.size {
            return Err(TreeError::Short);
        }
        let mut f = Frontier::default();
        self.visit_leaves(size, |_, h| f.push_leaf(h))?;
        Ok(f)
    }
    pub(crate) fn root_at(&self, size: u64) -> Result<Digest, TreeError> {
        Ok(self.frontier_at(size)?.root())
    }
}
