use super::*;

fn vector(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a length").to_be_bytes();
    [&length[4 - length_bytes..], content].concat()
}

/// Numbers as the specification lists them: `1301,c02b`.
fn numbers(list: &str) -> Vec<u8> {
    let values = list.split(',').filter(|value| !value.is_empty());
    values.flat_map(|value| u16::from_str_radix(value, 16).expect("a number").to_be_bytes()).collect()
}

/// The lists of a ClientHello, in their order.
#[derive(Clone, Copy)]
struct Hello<'a> {
    version: u16,
    suites: &'a str,
    extensions: &'a str,
    signature_algorithms: &'a str,
    protocol: &'a [u8],
    versions: &'a str,
}

impl Hello<'_> {
    fn records(&self, record_max: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        for kind in numbers(self.extensions).chunks(2) {
            let body = match u16::from_be_bytes([kind[0], kind[1]]) {
                SERVER_NAME => vector(2, &[&[0], &vector(2, b"nas.home.example")[..]].concat()),
                SIGNATURE_ALGORITHMS => vector(2, &numbers(self.signature_algorithms)),
                APPLICATION_PROTOCOLS => vector(2, &vector(1, self.protocol)),
                SUPPORTED_VERSIONS => vector(1, &numbers(self.versions)),
                _ => b"body".to_vec(),
            };
            extensions.extend([kind, &vector(2, &body)].concat());
        }
        let extensions = if extensions.is_empty() { Vec::new() } else { vector(2, &extensions) };
        let suites = vector(2, &numbers(self.suites));
        let version = self.version.to_be_bytes();
        let body = [&version[..], &[7; 32], &vector(1, &[9; 32]), &suites, &vector(1, &[0]), &extensions].concat();
        let message = [&[1], &vector(3, &body)[..]].concat();
        message.chunks(record_max).flat_map(|part| [&[22, 3, 1], &vector(2, part)[..]].concat()).collect()
    }

    fn fingerprint(&self) -> String {
        let fingerprint = Ja4::of(&self.records(1 << 14)).expect("a fingerprint");
        assert_eq!(Ja4::of(&self.records(3)), Some(fingerprint), "in pieces");
        fingerprint.to_string()
    }
}

/// The example of the specification, with GREASE in every list.
const CHROME: Hello<'_> = Hello {
    version: 0x0303,
    suites: "4a4a,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
    extensions: "0a0a,001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,6a6a,0015",
    signature_algorithms: "fafa,0403,0804,0401,0503,0805,0501,0806,0601",
    protocol: b"h2",
    versions: "7a7a,0304,0303",
};

#[test]
fn specification_example_has_its_fingerprint() {
    assert_eq!(CHROME.fingerprint(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    let shuffled = Hello {
        suites: "1301,1302,1303,002f,0035,009c,009d,c013,c014,c02b,c02c,c02f,c030,cca8,cca9,0a0a",
        extensions: "0015,000a,000b,ff01,002b,0012,0023,0005,000d,002d,0017,4469,0010,0033,0000,001b",
        ..CHROME
    };
    assert_eq!(shuffled.fingerprint(), CHROME.fingerprint());
}

/// ClientHellos from the specification's test recordings, with the fingerprints of its reference program.
#[test]
fn recorded_programs_have_their_fingerprints() {
    for (hello, fingerprint) in [
        (
            Hello {
                suites: "aaaa,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035,000a",
                extensions: "4a4a,0000,0017,ff01,000a,000b,0023,0010,0005,000d,0012,0033,002d,002b,001b,7a7a,0015",
                signature_algorithms: "0403,0804,0401,0503,0805,0501,0806,0601,0201",
                versions: "2a2a,0304,0303,0302,0301",
                ..CHROME
            },
            "t13d1615h2_46e7e9700bed_45f260be83e2",
        ),
        (
            Hello {
                suites: "1301,1303,1302,c02b,c02f,cca9,cca8,c02c,c030,c00a,c009,c013,c014,009c,009d,002f,0035",
                extensions: "0000,0017,ff01,000a,000b,0023,0010,0005,0022,0033,002b,000d,002d,001c,0015",
                signature_algorithms: "0403,0503,0603,0804,0805,0806,0401,0501,0601,0203,0201",
                versions: "0304,0303",
                ..CHROME
            },
            "t13d1715h2_5b57614c22b0_3d5424432f57",
        ),
        // TLS 1.2, without application protocols.
        (
            Hello {
                suites: "c02c,c02b,c030,c02f,c024,c023,c028,c027,c00a,c009,c014,c013,009d,009c,003d,003c,0035,002f,\
                         000a",
                extensions: "0000,0005,000a,000b,000d,0023,0017,ff01",
                signature_algorithms: "0804,0805,0806,0401,0501,0201,0403,0503,0203,0202,0601,0603",
                ..CHROME
            },
            "t12d190800_d83cc789557e_7af1ed941c26",
        ),
        // TLS 1.0, with a server name and nothing more.
        (
            Hello {
                version: 0x0301,
                suites: "0039,0038,0035,0016,0013,000a,0033,0032,002f,009a,0099,0096,0005,0004,0015,0012,0009,0014,0011,\
                         0008,0006,0003,00ff",
                extensions: "0000",
                ..CHROME
            },
            "t10d230100_6a57a6f57151_000000000000",
        ),
    ] {
        assert_eq!(hello.fingerprint(), fingerprint);
    }
}

#[test]
fn missing_lists_are_zeros() {
    let bare = Hello { version: 0x0300, suites: "0a0a", extensions: "", ..CHROME };
    assert_eq!(bare.fingerprint(), "ts3i000000_000000000000_000000000000");
    let unsigned = Hello {
        extensions: "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015",
        signature_algorithms: "",
        ..CHROME
    };
    assert_eq!(unsigned.fingerprint(), "t13d1516h2_8daaf6152771_6d807ffa2a79");
}

#[test]
fn protocol_is_two_printable_characters() {
    for (protocol, letters) in [
        (&b"h2"[..], "h2"),
        (b"http/1.1", "h1"),
        (b"", "00"),
        (b"x", "xx"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
        (b"\" route=admin\n", "2a"),
    ] {
        let fingerprint = Hello { protocol, ..CHROME }.fingerprint();
        assert_eq!(fingerprint.get(8..10), Some(letters), "{fingerprint}");
    }
}

#[test]
fn counts_end_at_99_and_overlong_lists_have_none() {
    let many = |count: u16| (0..count).map(|value| format!("{value:04x}")).collect::<Vec<_>>().join(",");
    let suites = many(120);
    let fingerprint = Hello { suites: &suites, ..CHROME }.fingerprint();
    assert!(fingerprint.starts_with("t13d9916h2_"), "{fingerprint}");
    let suites = many(1000);
    assert_eq!(Ja4::of(&Hello { suites: &suites, ..CHROME }.records(1 << 14)), None);
    let extensions = many(1000);
    assert_eq!(Ja4::of(&Hello { extensions: &extensions, ..CHROME }.records(1 << 14)), None);
}

/// Mutated bytes give no fingerprint or a plain one, and never a panic.
#[test]
fn malformed_hello_has_no_fingerprint() {
    let right = CHROME.records(1 << 14);
    for end in 0..right.len() {
        assert_eq!(Ja4::of(&right[..end]), None, "cut at {end}");
    }
    let (mut some, mut state) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..20_000 {
        let mut bytes = right.clone();
        for _ in 0..4 {
            // xorshift64 (Marsaglia 2003) with a fixed seed: the same rounds every time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let [value, _, _, _, a, b, _, _] = state.to_be_bytes();
            let at = usize::from(u16::from_be_bytes([a, b])) % bytes.len();
            bytes[at] = value;
        }
        if let Some(fingerprint) = Ja4::of(&bytes) {
            let fingerprint = fingerprint.to_string();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            assert!(fingerprint.len() == 36 && fingerprint.chars().all(plain), "{fingerprint}");
            some += 1;
        }
    }
    assert!((1_000..19_000).contains(&some), "the rounds must reach both outcomes: {some}");
}
