//! The partition of a key: the default of Kafka's Java producer, which librdkafka calls `murmur2_random`. Both logs use it, so an
//! account keeps its partition when a deployment moves from the embedded log to Kafka, and other producers agree.

/// The seed of Kafka's producers.
const SEED: u32 = 0x9747_b28c;
/// MurmurHash2's multiplier.
const MULTIPLIER: u32 = 0x5bd1_e995;
/// MurmurHash2's shift.
const SHIFT: u32 = 24;
/// Java's hash is signed: the producer clears the sign bit before it takes the remainder.
const WITHOUT_SIGN: u32 = 0x7fff_ffff;

/// The partition of a record with this key, in a topic of `partition_count` partitions (at least one).
pub fn partition_of_key(key: &[u8], partition_count: u32) -> u32 {
    (murmur2(key) & WITHOUT_SIGN) % partition_count
}

/// MurmurHash2 in Kafka's variant.
fn murmur2(key: &[u8]) -> u32 {
    // As in Java, lengths have 32 bits.
    let mut hash = SEED ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// librdkafka's own vectors (`rdmurmur2.c`, `unittest_murmur2`), made with Java's client.
    const KNOWN: [(&str, u32); 11] = [
        ("kafka", 0xd067_cf64),
        ("giberish123456789", 0x8f55_2b0c),
        ("1234", 0x9fc9_7b14),
        ("234", 0xe7c0_09ca),
        ("34", 0x8739_30da),
        ("4", 0x5a4b_5ca1),
        ("PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
        ("reAmbleWillBeRemoved,ThePrePartThatIs", 0x4a62_b377),
        ("eAmbleWillBeRemoved,ThePrePartThatIs", 0xe0e4_e09e),
        ("AmbleWillBeRemoved,ThePrePartThatIs", 0x62b8_b43f),
        ("", 0x106e_08d9),
    ];

    #[test]
    fn hashes_as_librdkafka_and_java_do() {
        for (key, hash) in KNOWN {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key:?}");
        }
    }

    /// Apache Kafka's own vectors (`UtilsTest.testMurmur2`), which have bytes beyond ASCII and signed results.
    #[test]
    fn hashes_as_apache_kafkas_tests_say() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn clears_the_sign_before_the_remainder() {
        assert_eq!(partition_of_key(b"kafka", 3), (0xd067_cf64 & 0x7fff_ffff) % 3);
        assert_eq!(partition_of_key(b"kafka", 1), 0);
    }
}
