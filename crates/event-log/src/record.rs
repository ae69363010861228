//! Records: owned for publishing, borrowed for reading.

use std::borrow::Cow;
use std::fmt;

use crate::kafka::KafkaHeaders;

/// The headers of an owned record: names and values in order. Names may repeat; the last value of a name counts.
///
/// The headers are encoded in one buffer, which is also their form in the embedded log's file. A header is one byte for its name (the
/// index in [`KNOWN_NAMES`], or [`OTHER_NAME`] followed by the name's [length](push_length) and the name), the value's length and the
/// value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<u8>);

/// The names that CloudEvents and W3C Trace Context define. Files store their indexes: new names go to the end, with a new layout.
const KNOWN_NAMES: [&str; 8] =
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_sequence", "traceparent"];

/// Marks a name that is not in [`KNOWN_NAMES`].
const OTHER_NAME: u8 = u8::MAX;

impl HeaderList {
    /// Appends a header. Its value is UTF-8 text by convention.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        match KNOWN_NAMES.iter().position(|known| *known == name) {
            Some(index) => self.0.push(index as u8),
            None => {
                self.0.push(OTHER_NAME);
                push_length(&mut self.0, Some(name.len()));
                self.0.extend_from_slice(name.as_bytes());
            }
        }
        push_length(&mut self.0, Some(value.len()));
        self.0.extend_from_slice(value);
    }

    /// Removes all headers and keeps the allocation.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The value of the last header called `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.as_headers().get(name)
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        EncodedHeaders(&self.0)
    }

    /// Whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The headers in the form of a record that is read.
    pub fn as_headers(&self) -> Headers<'_> {
        Headers::Encoded(&self.0)
    }

    pub(crate) fn as_encoded(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for HeaderList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |(name, value)| (name, String::from_utf8_lossy(value));
        f.debug_map().entries(self.iter().map(text)).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for HeaderList {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut list = HeaderList::default();
        for (name, value) in headers {
            list.push(name.as_ref(), value.as_ref());
        }
        list
    }
}

/// A record to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition; compaction keeps the last record of each key. Without a key the log chooses a partition.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is Kafka's tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: HeaderList,
}

impl Record {
    /// The encoded length of key, value and headers in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value) + self.headers.as_encoded().len()
    }
}

/// A record that is read, borrowed from the log's buffers.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// The record's partition.
    pub partition: u32,
    /// The record's offset in the partition.
    pub offset: u64,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

/// The headers of a record that is read, in the log's own form.
#[derive(Clone, Copy)]
pub enum Headers<'a> {
    /// A [`HeaderList`]'s encoding.
    Encoded(&'a [u8]),
    /// librdkafka's list.
    Kafka(KafkaHeaders<'a>),
}

impl<'a> Headers<'a> {
    /// The value of the last header called `name`.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        let is_named = |header: &(&str, &[u8])| header.0 == name;
        let found = match self {
            Headers::Encoded(bytes) => EncodedHeaders(bytes).filter(is_named).last(),
            Headers::Kafka(headers) => headers.iter().rfind(is_named),
        };
        found.map(|(_, value)| value)
    }

    /// All headers, owned.
    pub fn to_list(self) -> HeaderList {
        HeaderList(self.to_encoded().into_owned())
    }

    pub(crate) fn to_encoded(self) -> Cow<'a, [u8]> {
        match self {
            Headers::Encoded(bytes) => Cow::Borrowed(bytes),
            Headers::Kafka(headers) => Cow::Owned(headers.iter().collect::<HeaderList>().0),
        }
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_list().fmt(f)
    }
}

impl RecordRef<'_> {
    /// The record, owned.
    pub fn to_record(self) -> Record {
        Record {
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: self.headers.to_list(),
        }
    }
}

/// Iterates over encoded headers. It stops at a malformed header, which a chunk's checksum excludes.
struct EncodedHeaders<'a>(&'a [u8]);

impl<'a> EncodedHeaders<'a> {
    fn split(&mut self, length: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(part)
    }
}

impl<'a> Iterator for EncodedHeaders<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = match self.split(1)? {
            [OTHER_NAME] => {
                let length = split_length(&mut self.0)??;
                str::from_utf8(self.split(length)?).ok()?
            }
            index => KNOWN_NAMES.get(usize::from(index[0]))?,
        };
        let length = split_length(&mut self.0)??;
        Some((name, self.split(length)?))
    }
}

/// The length of an absent part.
const MISSING: u8 = u8::MAX;

/// Marks a length that does not fit in one byte: 32 bits follow, little endian.
const LONG: u8 = u8::MAX - 1;

/// Appends a length: one byte if it is less than [`LONG`]. `None` is the length of an absent part.
pub(crate) fn push_length(bytes: &mut Vec<u8>, length: Option<usize>) {
    match length {
        None => bytes.push(MISSING),
        Some(length) if length < usize::from(LONG) => bytes.push(length as u8),
        Some(length) => {
            bytes.push(LONG);
            bytes.extend_from_slice(&(length as u32).to_le_bytes());
        }
    }
}

/// Removes a length from the front; `None` if it is truncated.
pub(crate) fn split_length(bytes: &mut &[u8]) -> Option<Option<usize>> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    match *first {
        MISSING => Some(None),
        LONG => {
            let (length, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(Some(u32::from_le_bytes(*length) as usize))
        }
        length => Some(Some(usize::from(length))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_as_they_were_written_and_the_last_of_a_name_counts() {
        let written: [(&str, &[u8]); 6] =
            [("a", b"1"), ("ce_id", b"2"), ("b", b""), ("a", &[0, 255, 7]), ("ce_id", b"3"), ("", b"no name")];
        let list: HeaderList = written.into_iter().collect();
        assert!(list.iter().eq(written));
        assert_eq!(list.as_headers().to_list(), list);
        assert_eq!(
            ["a", "b", "", "c", "ce_id", "ce_time"].map(|name| list.get(name)),
            [Some(&[0, 255, 7][..]), Some(&b""[..]), Some(&b"no name"[..]), None, Some(&b"3"[..]), None]
        );
    }

    #[test]
    fn headers_are_encoded_as_they_lie_in_files() {
        let list: HeaderList = [("ce_specversion", "1.0"), ("other", "x"), ("traceparent", "")].into_iter().collect();
        assert_eq!(list.as_encoded(), b"\x00\x031.0\xff\x05other\x01x\x07\x00");
        for length in [0, 1, 253, 254, 255, 256, 100_000] {
            let (name, value) = ("n".repeat(length), vec![7; length]);
            let list: HeaderList = [(&*name, &*value), ("ce_type", b"behind")].into_iter().collect();
            assert!(list.iter().eq([(&*name, &*value), ("ce_type", b"behind")]), "{length}");
        }
    }

    #[test]
    fn encoded_headers_cut_anywhere_do_not_panic() {
        let list: HeaderList = [("name", &*"v".repeat(300)), ("ce_id", "more")].into_iter().collect();
        let bytes = list.as_encoded();
        for length in 0..bytes.len() {
            assert!(HeaderList(bytes[..length].to_vec()).iter().count() < 2);
        }
        // A name of a version to come.
        assert_eq!(HeaderList(vec![KNOWN_NAMES.len() as u8, 0]).iter().count(), 0);
    }
}
