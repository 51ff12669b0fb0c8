//! The QR code in the terminal, read by zbarimg.

use doorward::enrolment::qr::{Colours, terminal};

use crate::common::process::run;
use crate::common::terminal::on_a_terminal;
use crate::home::Home;
use crate::shared::share;

/// Pixels of each side of a module.
const SCALE: usize = 4;

/// A picture (PGM, plain) of the terminal that shows these lines: `ink` is the grey of a drawn block.
fn picture(lines: &[&str], ink: u8) -> Vec<u8> {
    let rows = lines.iter().flat_map(|line| {
        let halves = |upper: bool| -> Vec<u8> {
            let drawn = |c| match c {
                '█' => true,
                '▀' => upper,
                '▄' => !upper,
                ' ' => false,
                other => panic!("{other:?} is no block"),
            };
            line.chars().map(|c| if drawn(c) { ink } else { 255 - ink }).collect()
        };
        [halves(true), halves(false)]
    });
    let rows: Vec<Vec<u8>> = rows.collect();
    let mut image = format!("P5 {} {} 255\n", rows[0].len() * SCALE, rows.len() * SCALE).into_bytes();
    for row in &rows {
        let wide: Vec<u8> = row.iter().flat_map(|&pixel| [pixel; SCALE]).collect();
        image.extend(wide.repeat(SCALE));
    }
    image
}

/// The text that zbarimg reads in the picture.
#[track_caller]
fn read(home: &Home, image: &[u8]) -> String {
    std::fs::write(home.path("code.pgm"), image).unwrap();
    run(home.tool("zbarimg", "zbar-tools").args(["--quiet", "--raw", "code.pgm"]))
        .success()
        .text()
        .trim_end()
        .to_owned()
}

#[test]
fn code_on_the_screen_is_the_link() {
    let home = Home::new();
    let shown = run(share(&home).args(["--address", "127.0.0.1", "--expires", "1s"])).failure().stderr;
    let blocks = |line: &&str| line.chars().count() > 20 && line.chars().all(|c| " █▀▄".contains(c));
    let lines: Vec<&str> = shown.lines().filter(blocks).collect();
    let (_, url) = shown.split_once("or open   ").unwrap();
    // Not a terminal, so no colours: blocks are light, as text is on most screens.
    assert_eq!(read(&home, &picture(&lines, 255)), url.lines().next().unwrap());
}

#[test]
fn code_in_its_own_colours_is_black_on_white() {
    let home = Home::new();
    for text in ["http://192.168.178.105:41234/0123456789abcdef0123456789abcdef", "http://[fd00::1234]:1/ffff", "x"] {
        let code = terminal(text, Colours::BlackOnWhite).unwrap();
        let bare: Vec<&str> =
            code.lines().map(|line| line.split_once('m').unwrap().1.strip_suffix("\x1b[0m").unwrap()).collect();
        assert_eq!(read(&home, &picture(&bare, 0)), text);
    }
}

#[test]
fn code_on_a_terminal_has_its_own_colours() {
    let home = Home::new();
    let (shown, code) = on_a_terminal(share(&home).args(["--address", "127.0.0.1", "--expires", "1s"]), &[]);
    assert_eq!(code, 9, "{shown}");
    let coloured = shown.lines().filter_map(|line| line.trim_end().strip_prefix("\x1b[38;5;16;48;5;231m"));
    let lines: Vec<&str> = coloured.map(|line| line.strip_suffix("\x1b[0m").unwrap()).collect();
    let (_, url) = shown.split_once("or open   ").unwrap();
    assert_eq!(read(&home, &picture(&lines, 0)), url.lines().next().unwrap().trim_end());
}
