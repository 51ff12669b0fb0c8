//! QR codes in a terminal (ISO/IEC 18004).

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// How a code is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Black on white, whatever the terminal's own colours are (SGR sequences of ECMA-48).
    Set,
    /// In the colours of whatever shows it: right where the text is lighter than what is behind it.
    Inherit,
}

/// Black on white, from the colour cube that all terminals with more than 16 colours share: themes change the first 16.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const RESET: &str = "\x1b[0m";

/// Draws `text` as a QR code: lines of block characters, each two modules high, with the quiet zone around.
pub fn terminal(text: &str, colours: Colours) -> Result<String, TooLong> {
    // A screen does not get dirty; the second level is for cameras that look askew.
    let code = QrCode::with_error_correction_level(text, EcLevel::M).map_err(|_| TooLong)?;
    let (drawn, blank) = match colours {
        Colours::Set => (Dense1x2::Dark, Dense1x2::Light),
        Colours::Inherit => (Dense1x2::Light, Dense1x2::Dark),
    };
    let image = code.render::<Dense1x2>().dark_color(drawn).light_color(blank).quiet_zone(true).build();
    Ok(image.lines().fold(String::new(), |mut all, line| {
        match colours {
            Colours::Set => all.extend([BLACK_ON_WHITE, line, RESET, "\n"]),
            Colours::Inherit => all.extend([line, "\n"]),
        }
        all
    }))
}

/// More than a QR code can hold: some 2,300 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too long for a QR code")]
pub struct TooLong;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_show_the_same_code_with_its_quiet_zone() {
        let text = "http://192.168.178.105:41234/0123456789abcdef0123456789abcdef";
        let [set, plain] =
            [Colours::Set, Colours::Inherit].map(|colours| terminal(text, colours).expect("short enough"));
        let bare: Vec<String> = set
            .lines()
            .map(|line| {
                let line = line.strip_prefix(BLACK_ON_WHITE).and_then(|line| line.strip_suffix(RESET));
                line.expect("colours on each line").to_owned()
            })
            .collect();
        let inverted: Vec<String> = plain
            .lines()
            .map(|line| {
                let invert = |c| match c {
                    ' ' => '█',
                    '█' => ' ',
                    '▀' => '▄',
                    '▄' => '▀',
                    other => panic!("{other:?} is no block"),
                };
                line.chars().map(invert).collect()
            })
            .collect();
        // The code has an odd number of rows; the half line below it belongs to nobody.
        assert_eq!(bare[..bare.len() - 1], inverted[..inverted.len() - 1]);
        // Version 4 has 33 modules a side, and four more on each: it fits a terminal of 80 × 24.
        assert!(bare.iter().all(|line| line.chars().count() == 41), "{set}");
        assert_eq!(bare.len(), 21);
        assert!(bare[..2].iter().all(|line| line.trim().is_empty()), "{set}");
        assert_eq!(terminal(&"x".repeat(3000), Colours::Set), Err(TooLong));
    }
}
