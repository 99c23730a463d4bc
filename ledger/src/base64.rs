//! Standard base64 (RFC 4648, section 4), as keys and proofs use it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = 0_u32;
        for index in 0..3 {
            word = word << 8 | u32::from(chunk.get(index).copied().unwrap_or(0));
        }
        for index in 0..4 {
            let digit = (word >> (18 - 6 * index) & 63) as usize;
            let digit = ALPHABET.get(digit).copied().unwrap_or(b'A');
            text.push(if index > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

/// Decodes a text. There is exactly one text for any bytes: others are refused.
pub(crate) fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let digits = text.trim_end_matches('=');
    let (mut word, mut bits) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        word = word << 6 | value(digit)?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    (base64(&bytes) == text).then_some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc_and_nothing_else() {
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]
            .into_iter()
            .enumerate();
        for (length, text) in vectors {
            assert_eq!(base64(&b"foobar"[..length]), text);
            assert_eq!(unbase64(text).as_deref(), Some(&b"foobar"[..length]));
        }
        for wrong in ["Zg", "Zg=", "Zh==", "Zm9v=", "====", "Z g=", "Zm9v\n"] {
            assert_eq!(unbase64(wrong), None, "{wrong}");
        }
    }
}
