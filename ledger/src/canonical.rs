//! Canonical JSON (RFC 8785): sorted keys, shortest numbers, no white space.
//!
//! Written in one pass into one buffer: members stand as they come, and where an object ends whose
//! keys are out of order, its members are moved. Every digest of the record goes through here.

use std::cmp::Ordering;
use std::io::Write as _;

use serde::ser::{self, Error as _, Serialize};
use serde_json::Error;

/// Greatest whole number up to which JSON's numbers, which are doubles, keep all of them.
const EXACT_MAX: u64 = 1 << 53;

/// Encodes `value` as canonical JSON (RFC 8785): sorted keys, shortest numbers, no white space.
///
/// Numbers are doubles: a whole number beyond 2^53 is written as the one that is nearest to it. One
/// that is not finite is null, as serde_json writes it.
///
/// # Errors
/// When the value has no JSON form: a key that is no text, number or truth value.
pub fn canonical_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::default();
    value.serialize(&mut writer)?;
    Ok(writer.out)
}

/// What is written, and the members of the objects that are open.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    members: Vec<Member>,
    /// Memory to sort members in.
    spare: Vec<u8>,
}

/// Where a member stands: its key with the quotes, then a colon and its value.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    key_end: usize,
    end: usize,
}

/// An array or an object that is open.
struct Open<'a> {
    writer: &'a mut Writer,
    /// Where its first item stands.
    start: usize,
    /// Its members are those from here on.
    members: usize,
    /// A key that waits for its value.
    key: (usize, usize),
    /// What closes it, and the object around it where it is the value of a variant.
    close: &'static [u8],
}

impl Writer {
    fn text(&mut self, text: &str) -> Result<(), Error> {
        serde_json::to_writer(&mut self.out, text)
    }

    fn whole(&mut self, value: i128) -> Result<(), Error> {
        if value.unsigned_abs() > u128::from(EXACT_MAX) {
            return self.double(value as f64);
        }
        write!(self.out, "{value}").map_err(Error::io)
    }

    fn double(&mut self, value: f64) -> Result<(), Error> {
        if !value.is_finite() {
            return <&mut Self as ser::Serializer>::serialize_unit(self);
        }
        self.out.extend_from_slice(ryu_js::Buffer::new().format_finite(value).as_bytes());
        Ok(())
    }

    /// Writes a key; numbers and truth values become texts. Returns where it stands.
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(usize, usize), Error> {
        let start = self.out.len();
        key.serialize(&mut *self)?;
        match self.out.get(start) {
            Some(b'"') => {}
            Some(b'-' | b'0'..=b'9' | b't' | b'f') => {
                self.out.insert(start, b'"');
                self.out.push(b'"');
            }
            _ => return Err(Error::custom("a key must be a text")),
        }
        Ok((start, self.out.len()))
    }

    fn open(&mut self, first: u8, close: &'static [u8]) -> Open<'_> {
        self.out.push(first);
        let (start, members) = (self.out.len(), self.members.len());
        Open { start, members, key: (start, start), close, writer: self }
    }

    /// Opens an object with the name of a variant, up to its value.
    fn variant(&mut self, variant: &str) -> Result<(), Error> {
        self.out.push(b'{');
        self.text(variant)?;
        self.out.push(b':');
        Ok(())
    }
}

/// Compares the keys of two members.
fn order(out: &[u8], one: &Member, other: &Member) -> Ordering {
    let key = |at: &Member| at.start..at.key_end;
    compare(out.get(key(one)).unwrap_or_default(), out.get(key(other)).unwrap_or_default())
}

/// Compares two keys as they are written, by the UTF-16 units of their texts.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let is_plain = |key: &[u8]| key.iter().all(|byte| byte.is_ascii() && *byte != b'\\');
    if is_plain(one) && is_plain(other) {
        // Without the quotes: the closing one would be compared with letters.
        return one.split_last().map(|(_, key)| key).cmp(&other.split_last().map(|(_, key)| key));
    }
    let text = |key: &[u8]| serde_json::from_slice::<String>(key).unwrap_or_default();
    text(one).encode_utf16().cmp(text(other).encode_utf16())
}

impl Open<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        if self.writer.out.len() > self.start {
            self.writer.out.push(b',');
        }
        item.serialize(&mut *self.writer)
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        if self.writer.out.len() > self.start {
            self.writer.out.push(b',');
        }
        self.key = self.writer.key(key)?;
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.writer.out.push(b':');
        value.serialize(&mut *self.writer)?;
        let ((start, key_end), end) = (self.key, self.writer.out.len());
        self.writer.members.push(Member { start, key_end, end });
        Ok(())
    }

    fn close(self) -> Result<(), Error> {
        let Writer { out, members, spare } = self.writer;
        let own = members.get_mut(self.members..).unwrap_or_default();
        if !own.is_sorted_by(|one, next| order(out, one, next) == Ordering::Less) {
            own.sort_by(|one, other| order(out, one, other));
            spare.clear();
            let mut last: Option<&Member> = None;
            for member in own.iter() {
                // Of a key that stands twice the first counts.
                if last.is_some_and(|last| order(out, last, member) == Ordering::Equal) {
                    continue;
                }
                if last.is_some() {
                    spare.push(b',');
                }
                spare.extend_from_slice(out.get(member.start..member.end).unwrap_or_default());
                last = Some(member);
            }
            out.truncate(self.start);
            out.extend_from_slice(spare);
        }
        members.truncate(self.members);
        out.extend_from_slice(self.close);
        Ok(())
    }
}

/// Writes numbers through `whole`.
macro_rules! whole {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(self, value: $type) -> Result<(), Error> {
            self.whole(i128::from(value))
        })*
    };
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Open<'a>;
    type SerializeTuple = Open<'a>;
    type SerializeTupleStruct = Open<'a>;
    type SerializeTupleVariant = Open<'a>;
    type SerializeMap = Open<'a>;
    type SerializeStruct = Open<'a>;
    type SerializeStructVariant = Open<'a>;

    whole!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64
    );

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        match i128::try_from(value) {
            Ok(value) => self.whole(value),
            Err(_) => self.double(value as f64),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.double(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.double(value)
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.out.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Open<'a>, Error> {
        Ok(self.open(b'[', b"]"))
    }

    fn serialize_tuple(self, _length: usize) -> Result<Open<'a>, Error> {
        Ok(self.open(b'[', b"]"))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<Open<'a>, Error> {
        Ok(self.open(b'[', b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Open<'a>, Error> {
        self.variant(variant)?;
        Ok(self.open(b'[', b"]}"))
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Open<'a>, Error> {
        Ok(self.open(b'{', b"}"))
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Open<'a>, Error> {
        Ok(self.open(b'{', b"}"))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Open<'a>, Error> {
        self.variant(variant)?;
        Ok(self.open(b'{', b"}}"))
    }
}

/// Implements the traits of what has items in order.
macro_rules! items {
    ($($name:ident::$method:ident),*) => {
        $(impl ser::$name for Open<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
                self.item(item)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        })*
    };
}

items!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

/// Implements the traits of what has fields with names.
macro_rules! fields {
    ($($name:ident),*) => {
        $(impl ser::$name for Open<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.key(name)?;
                self.value(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Open<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

#[cfg(test)]
mod tests;
