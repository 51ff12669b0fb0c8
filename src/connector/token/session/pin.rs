//! The PIN of a token: from a file, from the terminal, or from a program that asks for it on the screen.

use std::env;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::connector::platform;
use crate::connector::token::error::TokenError;
use crate::connector::token::uri::TokenUri;

/// The longest PIN, in bytes.
const PIN_MAX: u64 = 256;

/// A PIN, which is wiped from memory when it is dropped.
pub(super) type Pin = Zeroizing<String>;

/// What is known of the tries that are left before a token locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    /// The token does not say that a wrong PIN was entered.
    Untold,
    /// A wrong PIN was entered since the last right one.
    Fewer,
    /// One more wrong PIN locks it.
    Last,
    /// None.
    Locked,
}

impl Tries {
    /// After a wrong PIN.
    pub(super) const fn left(self) -> &'static str {
        match self {
            Self::Untold => "the token does not say how many tries are left",
            Self::Fewer => "some tries are left",
            Self::Last => "one try is left before the token locks",
            Self::Locked => "the token is locked now",
        }
    }
}

/// The PIN of a token, for as long as this program runs.
#[derive(Default)]
pub(in crate::connector::token) struct Pins {
    known: Option<Pin>,
    refused: Option<Pin>,
}

impl Pins {
    /// The PIN to try. The user is asked only if that is permitted, and a PIN that the token has refused is not tried again.
    pub(super) fn choose(&self, uri: &TokenUri, tries: Tries, ask: bool) -> Result<Pin, TokenError> {
        let token = uri.describe();
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        if let Some(path) = &uri.pin_file {
            let pin = from_file(path)?;
            if self.refused.as_ref() == Some(&pin) {
                return Err(TokenError::WrongPin { token, left: tries.left() });
            }
            // Another program may have tried the same file, and the token locks after a few.
            return if tries == Tries::Untold {
                Ok(pin)
            } else {
                Err(TokenError::NotTried { token, path: path.clone() })
            };
        }
        if !ask {
            return Err(TokenError::NoPin { token });
        }
        let last = if tries == Tries::Last { " (one try is left)" } else { "" };
        self::ask(&token, &format!("PIN of {token}{last}:"))
    }

    /// It was right.
    pub(super) fn keep(&mut self, pin: Pin) {
        *self = Self { known: Some(pin), refused: None };
    }

    /// It was wrong.
    pub(super) fn refuse(&mut self, pin: Pin) {
        *self = Self { known: None, refused: Some(pin) };
    }
}

/// The first line of a file that only this user can read.
fn from_file(path: &Path) -> Result<Pin, TokenError> {
    let failed = |what: String| TokenError::PinFile { path: path.to_owned(), what };
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    if platform::others_can_read(&file).map_err(|error| failed(error.to_string()))? {
        return Err(failed(format!(
            "other users can read it\n  chmod 600 {}, and change the PIN if one may have",
            path.display()
        )));
    }
    match first_line(file).map_err(|error| failed(error.to_string()))? {
        pin if pin.is_empty() => Err(failed("it is empty".to_owned())),
        pin => Ok(pin),
    }
}

fn first_line(from: impl io::Read) -> io::Result<Pin> {
    let mut line = Zeroizing::new(String::with_capacity(PIN_MAX as usize));
    BufReader::new(from.take(PIN_MAX)).read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// How a user can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Terminal,
    Program(String),
}

/// Asks the user. `prompt` ends with a colon.
fn ask(token: &str, prompt: &str) -> Result<Pin, TokenError> {
    let not_given = || TokenError::NotGiven { token: token.to_owned() };
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let asked = match way(&variable, platform::has_terminal()) {
        None => return Err(TokenError::NoPin { token: token.to_owned() }),
        Some(Way::Terminal) => rpassword::prompt_password(format!("{prompt} ")).map(Zeroizing::new),
        Some(Way::Program(program)) => run(&program, prompt),
    };
    asked.ok().filter(|pin| !pin.is_empty()).ok_or_else(not_given)
}

/// As ssh(1) has it: the terminal if there is one, else the program that SSH_ASKPASS names, if there is a screen to ask on.
/// SSH_ASKPASS_REQUIRE changes that.
fn way(variable: &impl Fn(&str) -> Option<String>, has_terminal: bool) -> Option<Way> {
    let program = || variable("SSH_ASKPASS").map(Way::Program);
    let terminal = has_terminal.then_some(Way::Terminal);
    let has_screen = || variable("DISPLAY").or_else(|| variable("WAYLAND_DISPLAY")).is_some() || cfg!(not(unix));
    match variable("SSH_ASKPASS_REQUIRE").as_deref() {
        Some("never") => terminal,
        Some("force") => program(),
        Some("prefer") => program().or(terminal),
        _ => terminal.or_else(|| program().filter(|_| has_screen())),
    }
}

fn run(program: &str, prompt: &str) -> io::Result<Pin> {
    let mut command = Command::new(program);
    let mut child = command.arg(prompt).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let line = child.stdout.take().map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), first_line);
    if child.wait()?.success() { line } else { Err(io::ErrorKind::Interrupted.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_asked_as_ssh_asks() {
        let way_of = |variables: &[(&str, &str)], has_terminal| {
            let variable = |name: &str| Some(variables.iter().find(|(one, _)| *one == name)?.1.to_owned());
            way(&variable, has_terminal)
        };
        let program = || Some(Way::Program("/ask".to_owned()));
        let ask = ("SSH_ASKPASS", "/ask");
        let screen = ("DISPLAY", ":0");
        assert_eq!(way_of(&[], true), Some(Way::Terminal));
        assert_eq!(way_of(&[], false), None);
        assert_eq!(way_of(&[ask, screen], true), Some(Way::Terminal));
        assert_eq!(way_of(&[ask, screen], false), program());
        assert_eq!(way_of(&[ask, ("WAYLAND_DISPLAY", "wayland-0")], false), program());
        if cfg!(unix) {
            assert_eq!(way_of(&[ask], false), None);
        }
        let require = |value| ("SSH_ASKPASS_REQUIRE", value);
        assert_eq!(way_of(&[ask, require("force")], true), program());
        assert_eq!(way_of(&[require("force")], true), None);
        assert_eq!(way_of(&[ask, require("prefer")], true), program());
        assert_eq!(way_of(&[require("prefer")], true), Some(Way::Terminal));
        assert_eq!(way_of(&[ask, screen, require("never")], false), None);
    }
}
