//! The peers. Each encodes the same MessagePack event as the record does.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Outcome;
use crate::events::encoded;

/// A plain file: write and fdatasync for each group. Returns events a second.
pub(crate) fn raw(dir: &Path, total: u64, group: u64) -> Outcome<f64> {
    let path = dir.join("raw");
    let _ = fs::remove_file(&path);
    let file = File::create(&path)?;
    let begun = Instant::now();
    let (mut n, mut at) = (0, 0);
    while n < total {
        let mut bytes = Vec::new();
        for n in n..total.min(n + group) {
            let event = encoded(n);
            bytes.extend_from_slice(&(event.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&event);
        }
        file.write_all_at(&bytes, at)?;
        rustix::fs::fdatasync(&file)?;
        at += bytes.len() as u64;
        n += group;
    }
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    fs::remove_file(&path)?;
    Ok(rate)
}

/// SQLite with a write-ahead log and full synchronisation: one transaction for each group.
pub(crate) fn sqlite(dir: &Path, total: u64, group: u64) -> Outcome<f64> {
    let folder = dir.join("sqlite");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut db = rusqlite::Connection::open(folder.join("events"))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL)", ())?;
    let begun = Instant::now();
    let mut n = 0;
    while n < total {
        let transaction = db.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO events VALUES (?1, ?2)")?;
            for n in n..total.min(n + group) {
                insert.execute((n as i64, encoded(n)))?;
            }
        }
        transaction.commit()?;
        n += group;
    }
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    drop(db);
    fs::remove_dir_all(&folder)?;
    Ok(rate)
}

/// sled by itself, with the leaf size, cache and flush cadence that the record uses.
pub(crate) fn sled(dir: &Path, total: u64, group: u64) -> Outcome<f64> {
    let folder = dir.join("sled");
    let _ = fs::remove_dir_all(&folder);
    let config = sled::Config::new().path(&folder).cache_capacity_bytes(32 << 20);
    let db: sled::Db<64> = config.flush_every_ms(None).open()?;
    let begun = Instant::now();
    let (mut n, mut since) = (0, 0);
    while n < total {
        let mut batch = sled::Batch::default();
        for n in n..total.min(n + group) {
            batch.insert(&n.to_be_bytes(), encoded(n));
        }
        db.apply_batch(batch)?;
        n += group;
        since += group;
        if since >= 32_768 {
            db.flush()?;
            since = 0;
        }
    }
    db.flush()?;
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    drop(db);
    fs::remove_dir_all(&folder)?;
    Ok(rate)
}

/// Lists the segments of a notebook's journal.
pub(crate) fn segments(notebook: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(notebook.join("journal"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
