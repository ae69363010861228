//! Records: owned as they are published, borrowed as they are read.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedHeaders, Headers as _};

/// A named value beside a record's key and value. Names may repeat; the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name, such as `ce_id`.
    pub name: String,
    /// Its bytes, by custom UTF-8 text.
    pub value: Vec<u8>,
}

/// A record to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition; compaction keeps the last record of each key. Without one the log picks a partition.
    pub key: Option<Vec<u8>>,
    /// The record's bytes. `None` is Kafka's tombstone.
    pub value: Option<Vec<u8>>,
    /// In the order they are written.
    pub headers: Vec<Header>,
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
    /// As published.
    List(&'a [Header]),
    /// As the embedded log stores them.
    Encoded(&'a [u8]),
    /// As librdkafka holds them.
    Kafka(&'a BorrowedHeaders),
}

impl<'a> Headers<'a> {
    /// The value of the last header called `name`.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Headers::Empty => None,
            Headers::List(list) => list.iter().rev().find(|header| header.name == name).map(|h| h.value.as_slice()),
            Headers::Encoded(bytes) => {
                EncodedHeaders(bytes).filter(|(other, _)| *other == name.as_bytes()).last().map(|(_, value)| value)
            }
            Headers::Kafka(headers) => (0..headers.count())
                .rev()
                .filter_map(|index| kafka_header(headers, index))
                .find(|(other, _)| *other == name)
                .map(|(_, value)| value),
        }
    }

    /// All of them, owned.
    pub fn to_vec(self) -> Vec<Header> {
        match self {
            Headers::Empty => Vec::new(),
            Headers::List(list) => list.to_vec(),
            Headers::Encoded(bytes) => EncodedHeaders(bytes)
                .map(|(name, value)| Header { name: String::from_utf8_lossy(name).into_owned(), value: value.to_vec() })
                .collect(),
            Headers::Kafka(headers) => (0..headers.count())
                .filter_map(|index| kafka_header(headers, index))
                .map(|(name, value)| Header { name: name.to_owned(), value: value.to_vec() })
                .collect(),
        }
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.to_vec()).finish()
    }
}

impl RecordRef<'_> {
    /// The record, owned.
    pub fn to_record(self) -> Record {
        Record {
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: self.headers.to_vec(),
        }
    }
}

/// One header of a record that librdkafka holds; a null value reads as an empty one.
///
/// The binding panics on a name that is not UTF-8. Any producer can write such a name, and one record must never end the
/// thread that reads the topic, so that header counts as absent.
fn kafka_header(headers: &BorrowedHeaders, index: usize) -> Option<(&str, &[u8])> {
    let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(index))).ok().flatten()?;
    Some((header.key, header.value.unwrap_or_default()))
}

/// The embedded log's form of headers: for each one the name's length and the value's length (32 bits, little endian),
/// then the name and the value. It is read in place, with no allocation a record.
pub(crate) fn encode_headers(headers: &[Header]) -> Box<[u8]> {
    let length = headers.iter().map(|header| 8 + header.name.len() + header.value.len()).sum();
    let mut bytes = Vec::with_capacity(length);
    for header in headers {
        bytes.extend_from_slice(&(header.name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(header.value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(header.name.as_bytes());
        bytes.extend_from_slice(&header.value);
    }
    bytes.into_boxed_slice()
}

/// Walks over encoded headers. It ends at the first one that is cut short: records are checked before they are handed
/// out, so this is never seen, and it is not worth a panic.
struct EncodedHeaders<'a>(&'a [u8]);

impl<'a> Iterator for EncodedHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_length, rest) = self.0.split_first_chunk::<4>()?;
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*name_length) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_length) as usize)?;
        self.0 = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &[u8]) -> Header {
        Header { name: name.to_owned(), value: value.to_vec() }
    }

    #[test]
    fn encoded_headers_read_as_the_list_they_were_made_from() {
        let list = vec![header("a", b"1"), header("b", b""), header("a", &[0, 255, 7]), header("", b"no name")];
        let bytes = encode_headers(&list);
        let encoded = Headers::Encoded(&bytes);
        assert_eq!(encoded.to_vec(), list);
        for name in ["a", "b", "", "c"] {
            assert_eq!(encoded.get(name), Headers::List(&list).get(name), "{name:?}");
        }
    }

    #[test]
    fn encoded_headers_cut_anywhere_do_not_panic() {
        let list = vec![header("name", b"value"), header("other", b"more")];
        let bytes = encode_headers(&list);
        for length in 0..bytes.len() {
            assert!(Headers::Encoded(&bytes[..length]).to_vec().len() < list.len());
        }
    }
}
