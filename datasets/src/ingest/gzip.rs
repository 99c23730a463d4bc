//! Seeing through gzip: told by its first bytes, unpacked as it is read.

use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;

/// First bytes of a gzip member (RFC 1952, 2.3.1).
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// So much may come out of whatever was packed, however small it was.
const FREE_BYTES: u64 = 64 << 20;

/// Beyond that, no more than so many bytes may come out for each byte that was read.
const RATIO_MAX: u64 = 200;

/// An input, unpacked where it is packed with gzip, of one member or several.
///
/// What expands suspiciously ends in an error: more than 200 to 1 after the first 64 MiB.
pub struct Opened<R>(State<R>);

enum State<R> {
    /// Nothing has been read yet.
    New(Option<R>),
    Plain(Begun<R>),
    Packed(Box<BufReader<Gunzip<R>>>),
}

/// An input whose first bytes have been looked at.
type Begun<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Opens an input. It is not read before the first byte is asked for.
pub fn opened<R: BufRead>(input: R) -> Opened<R> {
    Opened(State::New(Some(input)))
}

/// Returns the first bytes of an input as [`detect`](super::detect) wants them: unpacked, and at
/// most `n`.
///
/// # Errors
/// When reading or unpacking fails.
pub fn head(input: impl BufRead, n: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    opened(input).take(n).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl<R: BufRead> Opened<R> {
    fn begin(&mut self) -> io::Result<()> {
        let State::New(input) = &mut self.0 else { return Ok(()) };
        let Some(mut input) = input.take() else {
            return Err(io::Error::other("the input could not be opened"));
        };
        let mut first = Vec::new();
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut first)?;
        let is_packed = first == MAGIC;
        let begun = Cursor::new(first).chain(input);
        self.0 = if is_packed {
            let decoder = MultiGzDecoder::new(Counted { input: begun, read: 0 });
            State::Packed(Box::new(BufReader::new(Gunzip { decoder, given: 0 })))
        } else {
            State::Plain(begun)
        };
        Ok(())
    }
}

impl<R: BufRead> Read for Opened<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.begin()?;
        match &mut self.0 {
            State::New(_) => Ok(0),
            State::Plain(input) => input.read(into),
            State::Packed(input) => input.read(into),
        }
    }
}

impl<R: BufRead> BufRead for Opened<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.begin()?;
        match &mut self.0 {
            State::New(_) => Ok(&[]),
            State::Plain(input) => input.fill_buf(),
            State::Packed(input) => input.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match &mut self.0 {
            State::New(_) => {}
            State::Plain(input) => input.consume(amount),
            State::Packed(input) => input.consume(amount),
        }
    }
}

/// Counts what is read of an input.
struct Counted<R> {
    input: R,
    read: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(into)?;
        self.read += length as u64;
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.read += amount as u64;
        self.input.consume(amount);
    }
}

/// Unpacks, and watches how much comes out.
struct Gunzip<R> {
    decoder: MultiGzDecoder<Counted<Begun<R>>>,
    given: u64,
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.decoder.read(into).map_err(|error| {
            let what = match error.kind() {
                ErrorKind::UnexpectedEof => "the gzip file is cut off",
                ErrorKind::InvalidData | ErrorKind::InvalidInput => "the gzip file is damaged",
                _ => return error,
            };
            io::Error::new(
                error.kind(),
                format!("{what}: fetch it again, or check it with gzip -t"),
            )
        })?;
        self.given += length as u64;
        let read = self.decoder.get_ref().read;
        if self.given > FREE_BYTES && self.given > read.saturating_mul(RATIO_MAX) {
            let what = format!(
                "the gzip file expands more than {RATIO_MAX} to 1: if you trust it, unpack it \
                 with gunzip and give the unpacked file"
            );
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        opened(bytes).read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn gzip_is_told_by_its_bytes_and_members_follow_one_another() {
        for plain in [&b""[..], b"{", b"\x1f", b"\x1f\x8a", b"{\"a\": 1}\n"] {
            assert_eq!(unpacked(plain).unwrap(), plain);
        }
        let two = [packed(b"{\"a\": 1}\n"), packed(b"{\"b\": 2}\n")].concat();
        assert_eq!(unpacked(&two).unwrap(), b"{\"a\": 1}\n{\"b\": 2}\n");
        assert_eq!(head(&two[..], 12).unwrap(), b"{\"a\": 1}\n{\"b");
    }

    #[test]
    fn cut_and_damaged_files_say_so() {
        let whole = packed(&b"words that do not repeat".repeat(3));
        let cut = unpacked(&whole[..whole.len() - 3]).unwrap_err();
        assert!(cut.to_string().starts_with("the gzip file is cut off"), "{cut}");
        let mut damaged = whole.clone();
        let place = whole.len() - 6;
        damaged[place] ^= 1;
        let damaged = unpacked(&damaged).unwrap_err();
        assert!(damaged.to_string().starts_with("the gzip file is damaged"), "{damaged}");
        assert!(unpacked(&[&whole[..], b"rubbish"].concat()).is_err());
    }

    #[test]
    fn a_bomb_ends_in_an_error_soon_after_what_is_free() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let block = vec![b' '; 1 << 20];
        (0..80).for_each(|_| encoder.write_all(&block).unwrap());
        let bomb = encoder.finish().unwrap();
        let mut given = 0;
        let mut input = opened(&bomb[..]);
        let error = loop {
            match input.fill_buf() {
                Ok([]) => panic!("it was unpacked whole"),
                Ok(bytes) => {
                    let length = bytes.len();
                    given += length as u64;
                    input.consume(length);
                }
                Err(error) => break error,
            }
        };
        assert!(given <= FREE_BYTES, "{given}");
        assert!(error.to_string().contains("unpack it"), "{error}");
        // What repeats itself only a little is no bomb, however long.
        assert_eq!(unpacked(&packed(&block)).unwrap().len(), block.len());
    }
}
