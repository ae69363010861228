//! Records: owned as they are published, borrowed as they are read.

use std::fmt;

use crate::kafka::KafkaHeaders;

/// Named values beside a record's key and value, owned. Names may repeat; the last one counts.
///
/// They stand in one piece of memory, for each one a byte for its name (its place in [`KNOWN_NAMES`], or [`OTHER_NAME`] with the
/// name's [length](push_length) and the name), the value's length and the value. So a record costs no allocation a header, and this is
/// also how the embedded log stores them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<u8>);

/// Names that CloudEvents and W3C give, which stand in nearly every record. Files depend on their places: others may
/// only follow, with a new layout, since a version that does not know one reads no header from there on.
const KNOWN_NAMES: [&str; 8] =
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_sequence", "traceparent"];

/// What stands for all other names.
const OTHER_NAME: u8 = u8::MAX;

impl HeaderList {
    /// None yet, with room for about so many bytes of names and values.
    pub fn with_capacity(bytes: usize) -> Self {
        HeaderList(Vec::with_capacity(bytes))
    }

    /// Adds one behind the others: its name, such as `ce_id`, and its bytes, by custom UTF-8 text.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.push_bytes(name.as_bytes(), value);
    }

    fn push_bytes(&mut self, name: &[u8], value: &[u8]) {
        match KNOWN_NAMES.iter().position(|known| known.as_bytes() == name) {
            Some(place) => self.0.push(place as u8),
            None => {
                self.0.push(OTHER_NAME);
                push_length(&mut self.0, Some(name.len()));
                self.0.extend_from_slice(name);
            }
        }
        push_length(&mut self.0, Some(value.len()));
        self.0.extend_from_slice(value);
    }

    /// Takes all of them away, and keeps the memory for others.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The value of the last one called `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.as_headers().get(name)
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // A name that came from elsewhere and is not UTF-8 has none that a record could be written with.
        EncodedHeaders::new(&self.0).map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a reader is handed them.
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
    /// Decides the partition; compaction keeps the last record of each key. Without one the log picks a partition.
    pub key: Option<Vec<u8>>,
    /// The record's bytes. `None` is Kafka's tombstone.
    pub value: Option<Vec<u8>>,
    /// In the order they are written.
    pub headers: HeaderList,
    /// Whether whoever publishes it knows that no earlier record has its key. The embedded log then need not look for what it
    /// replaces; where it is wrongly set, an older record only takes disk space. It is `false` of every record that was read.
    pub is_first_of_key: bool,
}

impl Record {
    /// How long key, value and headers are together, as they are encoded.
    pub(crate) fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value) + self.headers.as_encoded().len()
    }
}

/// A record as a reader is handed it, borrowed from the log's own buffers.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// The partition it stands in.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// The headers of a record, in whatever form the log holds them.
#[derive(Clone, Copy)]
pub enum Headers<'a> {
    /// None at all.
    Empty,
    /// As published, and as the embedded log stores them.
    Encoded(&'a [u8]),
    /// As librdkafka holds them.
    Kafka(KafkaHeaders<'a>),
}

impl<'a> Headers<'a> {
    /// The value of the last header called `name`.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        match self.encoded() {
            Ok(headers) => headers.filter(|(other, _)| *other == name.as_bytes()).last().map(|(_, value)| value),
            Err(headers) => headers.iter().rev().find(|(other, _)| *other == name).map(|(_, value)| value),
        }
    }

    /// All of them, owned.
    pub fn to_list(self) -> HeaderList {
        match self {
            Headers::Encoded(bytes) => HeaderList(bytes.to_vec()),
            headers => match headers.encoded() {
                Ok(headers) => {
                    let mut list = HeaderList::default();
                    headers.for_each(|(name, value)| list.push_bytes(name, value));
                    list
                }
                Err(headers) => headers.iter().collect(),
            },
        }
    }

    /// Those of the embedded log, or else Kafka's.
    fn encoded(self) -> Result<EncodedHeaders<'a>, KafkaHeaders<'a>> {
        match self {
            Headers::Empty => Ok(EncodedHeaders::new(&[])),
            Headers::Encoded(bytes) => Ok(EncodedHeaders::new(bytes)),
            Headers::Kafka(headers) => Err(headers),
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
            is_first_of_key: false,
        }
    }
}

/// Walks over encoded headers. It ends at the first one that is cut short: records are checked before they are handed
/// out, so this is never seen, and it is not worth a panic.
struct EncodedHeaders<'a> {
    bytes: &'a [u8],
}

impl<'a> EncodedHeaders<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        EncodedHeaders { bytes }
    }

    fn split(&mut self, length: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(part)
    }
}

impl<'a> Iterator for EncodedHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = match self.split(1)? {
            [OTHER_NAME] => {
                let length = split_length(&mut self.bytes)??;
                self.split(length)?
            }
            place => KNOWN_NAMES.get(usize::from(place[0]))?.as_bytes(),
        };
        let length = split_length(&mut self.bytes)??;
        Some((name, self.split(length)?))
    }
}

/// What stands for the length of a part that is not there.
const MISSING: u8 = u8::MAX;

/// What a length begins with that needs more than a byte: 32 bits follow, little endian.
const LONG: u8 = u8::MAX - 1;

/// Adds a length, which takes one byte if it is less than [`LONG`]; `None` is that of a part that is not there.
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

/// Takes a length from the front; `None` if it is cut short.
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
