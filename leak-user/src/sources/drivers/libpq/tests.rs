use super::*;

/// The accessors of Debian's libpq 15, in the order of [`ACCESSORS`].
const FIFTEEN: [&str; 5] = [
    "4885ff740b8b8758010000c30f1f4000b801000000c3",
    "4885ff74078b87b8010000c3b8ffffffffc3",
    "b8040000004885ff74268b8f5801000085c9751c8b975c010000b80100000085d2750d8b8760010000c3660f1f44\
     0000c3",
    "31c04885ff741983bf580100000174100fb787d2020000c30f1f840000000000c3",
    "31c04885ff741983bf580100000174108b87d4020000c3660f1f840000000000c3",
];
/// Those of the libpq 18 in a wheel: there may be a second descriptor.
const EIGHTEEN: [&str; 5] = [
    "4885ff740b8b87f8010000c30f1f4000b801000000c3",
    "4885ff741a8b87c003000083f8ff7408c30f1f80000000008b8760020000c3b8ffffffffc3",
    "b8040000004885ff74268b8ff801000085c9751c8b97fc010000b80100000085d2750d8b8700020000c3660f1f44\
     0000c3",
    "31c04885ff741983bff80100000174100fb7877a030000c30f1f840000000000c3",
    "31c04885ff741983bff80100000174108b877c030000c3660f1f840000000000c3",
];

fn code(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn build(accessors: [&str; 5]) -> Libpq {
    Libpq::of(accessors.map(code)).unwrap()
}

fn put(object: &mut [u8], at: usize, bytes: &[u8]) {
    object[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A connection of libpq 15 in a transaction.
fn connection() -> Vec<u8> {
    let mut object = vec![0; SIZE];
    put(&mut object, 0x160, &2u32.to_le_bytes());
    put(&mut object, 0x1b8, &9u32.to_le_bytes());
    put(&mut object, 0x1c0, &address(40_001));
    put(&mut object, 0x248, &address(5432));
    put(&mut object, 0x2d0, &0x0003_0000u32.to_le_bytes());
    put(&mut object, 0x2d4, &150_012u32.to_le_bytes());
    object
}

fn address(port: u16) -> Vec<u8> {
    let mut storage = vec![0; 136];
    put(&mut storage, 0, &2u16.to_le_bytes());
    put(&mut storage, 2, &port.to_be_bytes());
    put(&mut storage, 4, &[127, 0, 0, 1]);
    put(&mut storage, 128, &16u32.to_le_bytes());
    storage
}

#[test]
fn a_connection_is_what_its_accessors_say() {
    let ends = vec!["127.0.0.1:40001".parse().unwrap(), "127.0.0.1:5432".parse().unwrap()];
    let mut object = connection();
    let known = |state| Some(Known { descriptor: 9, ends: ends.clone(), state });
    assert_eq!(build(FIFTEEN).read(&object), known(Some(WireState::InTransaction)));
    assert_eq!(build(EIGHTEEN).read(&object), None, "of another build");
    put(&mut object, 0x160, &0u32.to_le_bytes());
    assert_eq!(build(FIFTEEN).read(&object), known(Some(WireState::Idle)));
    put(&mut object, 0x160, &3u32.to_le_bytes());
    assert_eq!(build(FIFTEEN).read(&object), known(Some(WireState::FailedTransaction)));
    put(&mut object, 0x15c, &1u32.to_le_bytes());
    assert_eq!(build(FIFTEEN).read(&object), known(None), "a result is awaited");
}

#[test]
fn a_second_descriptor_goes_before_the_first() {
    let mut object = vec![0; SIZE];
    put(&mut object, 0x200, &2u32.to_le_bytes());
    put(&mut object, 0x260, &9u32.to_le_bytes());
    put(&mut object, 0x268, &address(40_001));
    put(&mut object, 0x378, &0x0003_0002u32.to_le_bytes());
    put(&mut object, 0x37c, &180_000u32.to_le_bytes());
    put(&mut object, 0x3c0, &u32::MAX.to_le_bytes());
    let descriptor = |object: &[u8]| build(EIGHTEEN).read(object).map(|known| known.descriptor);
    assert_eq!(descriptor(&object), Some(9));
    put(&mut object, 0x3c0, &11u32.to_le_bytes());
    assert_eq!(descriptor(&object), Some(11));
}

#[test]
fn whatever_does_not_prove_itself_is_no_connection() {
    let build = build(FIFTEEN);
    for (at, value, why) in [
        (0x158, 1u32, "it is closed"),
        (0x158, 4, "it is being opened"),
        (0x160, 4, "its state is unknown"),
        (0x160, 5, "there is no such state"),
        (0x1b8, u32::MAX, "it has no descriptor"),
        (0x2d0, 0x0002_0000, "another protocol"),
        (0x2d4, 0, "no server"),
        (0x2d4, 0x7fff_ffff, "no such server"),
    ] {
        let mut object = connection();
        put(&mut object, at, &value.to_le_bytes());
        assert_eq!(build.read(&object), None, "{why}");
    }
    let mut object = connection();
    put(&mut object, 0x1c0, &[0; 272]);
    assert_eq!(build.read(&object), None, "it has no address");
    for length in [0, 1, 0x15a, 0x1bb, 0x2d3, 0x2d7] {
        assert_eq!(build.read(&connection()[..length]), None, "cut after {length} bytes");
    }
}

#[test]
fn noise_is_no_connection_and_harms_nobody() {
    let build = build(FIFTEEN);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let mut object = connection();
        for _ in 0..random.usize(1..200) {
            let at = random.usize(0x150..0x2d8);
            object[at] = random.u8(..);
        }
        if let Some(known) = build.read(&object) {
            assert!(i32::try_from(known.descriptor).is_ok() && !known.ends.is_empty());
        }
        object.truncate(random.usize(..SIZE));
        build.read(&object);
    }
}

#[test]
fn accessors_that_are_none_are_not_believed() {
    for index in 0..5 {
        for other in ["c3", "31c0c3", "e800000000c3", ""] {
            let mut accessors = FIFTEEN;
            accessors[index] = other;
            assert_eq!(Libpq::of(accessors.map(code)), None, "{} is {other}", ACCESSORS[index]);
        }
    }
}

#[test]
fn both_families_have_addresses() {
    let mut six = vec![0; 136];
    put(&mut six, 0, &10u16.to_le_bytes());
    put(&mut six, 2, &5433u16.to_be_bytes());
    put(&mut six, 8, &"::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets());
    put(&mut six, 128, &28u32.to_le_bytes());
    let found = addresses(&[address(5432), six.clone(), vec![0; 8]].concat());
    assert_eq!(found, ["127.0.0.1:5432".parse().unwrap(), "10.0.0.1:5433".parse().unwrap()]);
    put(&mut six, 128, &16u32.to_le_bytes());
    assert_eq!(addresses(&six), [], "too short for its family");
}
