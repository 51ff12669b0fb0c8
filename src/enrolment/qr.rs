//! QR codes in a terminal (ISO/IEC 18004).

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The colours of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Black on white, by the terminal's escape sequences (SGR of ECMA-48).
    BlackOnWhite,
    /// Those of the terminal: readable where the text is lighter than its background.
    Default,
}

/// From the colour cube, which is the same in all terminals: themes change the first 16 colours.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const RESET: &str = "\x1b[0m";

/// Draws `text` as a QR code: lines of block characters, each two modules high, with the quiet zone around.
pub fn terminal(text: &str, colours: Colours) -> Result<String, TooLong> {
    // A screen is not damaged; the second level helps cameras at an angle.
    let code = QrCode::with_error_correction_level(text, EcLevel::M).map_err(|_| TooLong)?;
    let (drawn, blank) = match colours {
        Colours::BlackOnWhite => (Dense1x2::Dark, Dense1x2::Light),
        Colours::Default => (Dense1x2::Light, Dense1x2::Dark),
    };
    let image = code.render::<Dense1x2>().dark_color(drawn).light_color(blank).quiet_zone(true).build();
    Ok(image.lines().fold(String::new(), |mut all, line| {
        match colours {
            Colours::BlackOnWhite => all.extend([BLACK_ON_WHITE, line, RESET, "\n"]),
            Colours::Default => all.extend([line, "\n"]),
        }
        all
    }))
}

/// The text has more than a QR code can hold: some 2,300 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too long for a QR code")]
pub struct TooLong;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_colours_show_one_code_with_its_quiet_zone() {
        let text = "http://192.168.178.105:41234/0123456789abcdef0123456789abcdef";
        let [set, plain] =
            [Colours::BlackOnWhite, Colours::Default].map(|colours| terminal(text, colours).expect("short enough"));
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
        // The code has an odd number of rows; the half line below it is not part of it.
        assert_eq!(bare[..bare.len() - 1], inverted[..inverted.len() - 1]);
        // Version 4 has 33 modules a side, and four more on each: it fits a terminal of 80 × 24.
        assert!(bare.iter().all(|line| line.chars().count() == 41), "{set}");
        assert_eq!(bare.len(), 21);
        assert!(bare[..2].iter().all(|line| line.trim().is_empty()), "{set}");
        assert_eq!(terminal(&"x".repeat(3000), Colours::BlackOnWhite), Err(TooLong));
    }
}
