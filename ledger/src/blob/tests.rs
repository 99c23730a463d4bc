#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

use serde_json::json;

use super::*;

#[test]
fn stores_reads_and_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path());
    let body = blobs.put(b"some text").unwrap();
    assert_eq!(body.digest, Digest::of(b"some text"));
    assert_eq!(blobs.get(&body).unwrap(), b"some text");
    let path = blobs.path(&body.digest);
    let (old, file) = (SystemTime::UNIX_EPOCH, File::open(&path).unwrap());
    file.set_modified(old).unwrap();
    let node = fs::metadata(&path).unwrap().ino();
    assert_eq!(blobs.put(b"some text").unwrap(), body);
    let now = fs::metadata(&path).unwrap();
    assert_eq!(now.ino(), node, "a body that is there is not written again");
    assert!(now.modified().unwrap() > old, "but it is no garbage any more");
}

#[test]
fn many_files_and_streams_agree() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path());
    let large = vec![7_u8; CHUNK + 3];
    let bodies = vec![b"a".to_vec(), b"b".to_vec(), b"a".to_vec(), Vec::new(), large.clone()];
    let stored = blobs.put_many(&bodies).unwrap();
    assert_eq!(stored.len(), 5);
    assert_eq!(stored.first(), stored.get(2));
    for (body, bytes) in stored.iter().zip(&bodies) {
        assert_eq!(&blobs.get(body).unwrap(), bytes);
    }
    let file = dir.path().join("input");
    fs::write(&file, &large).unwrap();
    assert_eq!(Some(&blobs.put_file(&file).unwrap()), stored.last());
    fs::write(&file, b"new").unwrap();
    let fresh = blobs.put_file(&file).unwrap();
    assert_eq!(blobs.get(&fresh).unwrap(), b"new");
    let staging = fs::read_dir(dir.path().join("blobs/tmp")).unwrap();
    assert_eq!(staging.count(), 0, "nothing is left behind");
}

#[test]
fn every_flipped_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path());
    let body = blobs.put(b"0123456789").unwrap();
    let path = blobs.path(&body.digest);
    for index in 0..10 {
        let mut bytes = b"0123456789".to_vec();
        bytes[index] ^= 1;
        fs::write(&path, &bytes).unwrap();
        match blobs.get(&body) {
            Err(BlobError::Damaged { found, .. }) => assert_eq!(found, Digest::of(&bytes)),
            other => panic!("byte {index}: {other:?}"),
        }
        assert!(matches!(blobs.check(&body.digest), Err(BlobError::Damaged { .. })));
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(blobs.get(&body), Err(BlobError::Missing { .. })));
    assert!(matches!(blobs.check(&body.digest), Err(BlobError::Missing { .. })));
}

#[test]
fn a_damaged_body_is_mended_by_storing_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path());
    let body = blobs.put(b"0123456789").unwrap();
    let file = dir.path().join("input");
    fs::write(&file, b"0123456789").unwrap();
    for damaged in [&b"01234"[..], b"0123456780"] {
        fs::write(blobs.path(&body.digest), damaged).unwrap();
        blobs.put(b"0123456789").unwrap();
        assert_eq!(blobs.get(&body).unwrap(), b"0123456789");
        fs::write(blobs.path(&body.digest), damaged).unwrap();
        blobs.put_file(&file).unwrap();
        assert_eq!(blobs.get(&body).unwrap(), b"0123456789");
    }
}

#[test]
fn finds_the_bodies_that_facts_name() {
    let body = BodyRef { digest: Digest::of(b"x"), length: 1, cipher: None, subject: None };
    let facts = json!({
        "a": body, "b": [{"c": body}, 3], "d": {"digest": body.digest, "length": 1},
    });
    assert_eq!(bodies_in(&facts), vec![body.clone(), body]);
}

/// A device that knows what a power cut would take, and allows no name to bytes that it would.
#[derive(Debug, Default)]
struct Careful {
    /// It can sync the whole file system, and how often it was asked to.
    whole: bool,
    synced_whole: Mutex<u32>,
    /// The sync of the whole file system that fails, counted from 1.
    fails: u32,
    /// Files (by node) and directories that are not durable yet.
    bytes: Mutex<BTreeSet<u64>>,
    names: Mutex<BTreeSet<PathBuf>>,
}

impl Device for Careful {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().insert(file.metadata()?.ino());
        Disk.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.bytes.lock().unwrap().remove(&file.metadata()?.ino());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let node = fs::metadata(from)?.ino();
        assert!(!self.bytes.lock().unwrap().contains(&node), "named before its bytes are durable");
        let dir = to.parent().unwrap();
        self.names.lock().unwrap().extend([dir.to_owned(), dir.parent().unwrap().to_owned()]);
        Disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.names.lock().unwrap().remove(dir);
        Ok(())
    }

    fn syncs_all(&self, _: &File) -> bool {
        self.whole
    }

    fn sync_all(&self, _: &File) -> io::Result<()> {
        let mut count = self.synced_whole.lock().unwrap();
        *count += 1;
        if *count == self.fails {
            return Err(io::Error::other("input/output error"));
        }
        self.bytes.lock().unwrap().clear();
        self.names.lock().unwrap().clear();
        Ok(())
    }
}

impl Careful {
    /// Nothing that was written or named would be lost.
    fn is_durable(&self) -> bool {
        self.bytes.lock().unwrap().is_empty() && self.names.lock().unwrap().is_empty()
    }
}

fn texts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("text {n}").into_bytes()).collect()
}

/// Counts the files of bodies that have their names, and those that have not.
fn files(dir: &Path) -> (usize, usize) {
    let entries = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (tmp, shards): (Vec<_>, Vec<_>) =
        entries(dir.join("blobs")).partition(|path| path.ends_with("tmp"));
    let count = |dirs: Vec<PathBuf>| dirs.into_iter().flat_map(entries).count();
    (count(shards), count(tmp))
}

#[test]
fn nothing_has_its_name_before_its_bytes_are_durable() {
    for (whole, count) in [(true, 1), (true, MANY - 2), (true, MANY), (true, 400), (false, 400)] {
        let dir = tempfile::tempdir().unwrap();
        let device = Arc::new(Careful { whole, ..Careful::default() });
        let blobs = Blobs::on(dir.path(), Arc::clone(&device) as Arc<dyn Device>);
        let texts = texts(count);
        let stored = blobs.put_many(&texts).unwrap();
        assert!(device.is_durable(), "{whole}, {count}");
        let synced = *device.synced_whole.lock().unwrap();
        assert_eq!(synced > 0, whole && count >= MANY, "{whole}, {count}");
        assert_eq!(files(dir.path()), (count, 0));
        for (body, text) in stored.iter().zip(&texts) {
            assert_eq!(&blobs.get(body).unwrap(), text);
        }
    }
}

#[test]
fn a_sync_of_all_that_fails_is_told_and_can_be_asked_for_again() {
    for (fails, named) in [(1, 0), (2, 400)] {
        let dir = tempfile::tempdir().unwrap();
        let device = Arc::new(Careful { whole: true, fails, ..Careful::default() });
        let blobs = Blobs::on(dir.path(), Arc::clone(&device) as Arc<dyn Device>);
        let error = blobs.put_many(&texts(400)).unwrap_err();
        assert!(error.to_string().contains("input/output error"), "{error}");
        assert_eq!(files(dir.path()), (named, 0), "{fails}");
        blobs.put_many(&texts(400)).unwrap();
        assert!(device.is_durable(), "names that were there already are synced as well");
        assert_eq!(files(dir.path()), (400, 0));
    }
}

#[test]
fn the_whole_file_system_is_synced_where_it_can_be_relied_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = File::open(dir.path()).unwrap();
    if Disk.syncs_all(&root) {
        Disk.sync_all(&root).unwrap();
    } else {
        eprintln!("SKIPPED: one sync for a whole file system: not here");
    }
    if let Ok(other) = File::open("/proc") {
        assert!(!Disk.syncs_all(&other), "of an unknown file system nothing is expected");
    }
}

/// Not a test: says how many bodies are stored and read in a second.
#[test]
#[ignore = "measures; run it alone, with --nocapture"]
fn rates() {
    let count = 20_000;
    let bodies: Vec<Vec<u8>> = (0..count).map(|n| format!("{n:0>2048}").into_bytes()).collect();
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path());
    let measured = |what: &str, work: &mut dyn FnMut()| {
        let begun = std::time::Instant::now();
        work();
        println!("{what:24} {:>9.0} bodies/s", f64::from(count) / begun.elapsed().as_secs_f64());
    };
    for group in [256, 1000, 4000] {
        let blobs = Blobs::open(&dir.path().join(format!("{group}")));
        let mut put = || bodies.chunks(group).for_each(|part| drop(blobs.put_many(part).unwrap()));
        measured(&format!("stored by {group}"), &mut put);
        measured(&format!("stored again by {group}"), &mut put);
    }
    let stored = blobs.put_many(&bodies).unwrap();
    for _ in 0..3 {
        measured("read", &mut || stored.iter().for_each(|body| drop(blobs.get(body).unwrap())));
        let check = |body: &BodyRef| blobs.check(&body.digest).unwrap();
        measured("checked", &mut || stored.iter().for_each(check));
    }
}
