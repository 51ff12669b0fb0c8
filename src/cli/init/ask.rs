//! `doorward init` without options, in a terminal: a few questions, whose answers become the options.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, IsTerminal as _, Write as _};
use std::path::Path;

use super::acme::TERMS;
use super::parse::{parse_domain, parse_route};
use crate::cli::ca::parse_device;
use crate::cli::corrections::NO_DOMAIN;
use crate::enrolment::PUBLIC_PORT;
use crate::model::names::ServerName;
use crate::model::public_name::not_public;
use crate::model::shell;

/// Whether this command line is answered with questions: it has no option, and a person is there to answer.
fn asks(arguments: &[OsString]) -> bool {
    let [_, command] = arguments else { return false };
    command == OsStr::new("init") && io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The command line, with the answers if it is one that asks.
///
/// # Errors
/// If the input ends before the last answer, or there is a gate in the folder already: in words.
pub(in crate::cli) fn answered(mut arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    if !asks(&arguments) {
        return Ok(arguments);
    }
    if Path::new("doorward/doorward.toml").exists() {
        return Err(
            "there is a gate in the folder doorward already\n  for a second one: doorward init --folder FOLDER, with \
                    --domain, --route and --device"
                .to_owned(),
        );
    }
    let mut said = io::stderr().lock();
    let options = Questions { input: io::stdin().lock(), output: &mut said }
        .ask()
        .map_err(|_| "the questions were not answered; nothing was written".to_owned())?;
    let plain = |option: &str| option.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:,=/".contains(c));
    let shown: Vec<_> =
        options.iter().map(|option| if plain(option) { option.into() } else { shell::word(option) }).collect();
    // A closed terminal has been noticed by the questions.
    let _ = writeln!(said, "\nThe same without questions:\n  doorward init {}\n", shown.join(" "));
    arguments.extend(options.into_iter().map(OsString::from));
    Ok(arguments)
}

/// Who asks and who answers.
struct Questions<I, O> {
    input: I,
    output: O,
}

impl<I: BufRead, O: io::Write> Questions<I, O> {
    fn ask(&mut self) -> io::Result<Vec<String>> {
        writeln!(self.output, "Six questions; Ctrl-C ends without a change.\n")?;
        let mut options = Vec::new();

        writeln!(
            self.output,
            "1. Which name leads to your router? A domain of yours, such as home.example, or a name from dynamic DNS."
        )?;
        let domain = self.one("   name (none yet: press Enter): ", |answer| match answer {
            "" => Err(NO_DOMAIN.to_owned()),
            answer => parse_domain(answer),
        })?;
        options.extend(["--domain".to_owned(), domain.to_string()]);

        writeln!(
            self.output,
            "\n2. Do names below it lead there as well, such as nas.{domain}?\n   With a DNS record for *.{domain} they do, and with \
             most dynamic DNS services."
        )?;
        let wildcard = self.one("   yes or no [yes]: ", |answer| match answer.to_ascii_lowercase().as_str() {
            "" | "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("answer yes or no".to_owned()),
        })?;
        let most = if wildcard {
            usize::MAX
        } else {
            options.push("--no-wildcard".to_owned());
            1
        };

        writeln!(
            self.output,
            "\n3. What is to be reached? A name, and the address and port in your network, as in nas=192.168.1.10:5666 or\n   \
             ssh=192.168.1.10:22."
        )?;
        options.extend(self.several("--route", "   service", most, |answer| {
            parse_route(answer).map(|route| route.name.to_string())
        })?);

        writeln!(self.output, "\n4. Which devices may use it? A name for each, as in alice-phone.")?;
        options.extend(self.several("--device", "   device", usize::MAX, |answer| {
            parse_device(answer).map(|name| name.to_string())
        })?);

        writeln!(
            self.output,
            "\n5. Which port of your router will lead to this machine? Browsers expect {PUBLIC_PORT}."
        )?;
        let port = self.one(&format!("   port [{PUBLIC_PORT}]: "), |answer| match answer {
            "" => Ok(PUBLIC_PORT),
            answer => {
                let port = answer.parse().ok().filter(|port| *port != 0);
                port.ok_or_else(|| "a port is a number from 1 to 65535".to_owned())
            }
        })?;
        if port != PUBLIC_PORT {
            options.extend(["--public-port".to_owned(), port.to_string()]);
        }
        options.extend(self.certificate(&domain, port)?);
        Ok(options)
    }

    /// Asks which authority vouches for the gate, if there is a choice.
    fn certificate(&mut self, domain: &ServerName, port: u16) -> io::Result<Option<String>> {
        writeln!(self.output, "\n6. Which authority vouches for the gate?")?;
        if let Some(why) = not_public(domain.as_str()) {
            // The only answer.
            writeln!(
                self.output,
                "   One of your own, which each device must trust first: for {domain}, no public one does ({why})."
            )?;
            return Ok(None);
        }
        let also = match port {
            PUBLIC_PORT => String::new(),
            port => format!(", which must lead to this machine as well as port {port}"),
        };
        writeln!(
            self.output,
            "   own     one of your own: each device must trust it first
   public  Let's Encrypt: devices trust it already. It connects to your names at port {PUBLIC_PORT}{also},
           and publishes the names. You agree to its terms of service: {TERMS}"
        )?;
        let is_public = self.one("   own or public [own]: ", |answer| match answer.to_ascii_lowercase().as_str() {
            "" | "own" => Ok(false),
            "public" => Ok(true),
            _ => Err("answer own or public".to_owned()),
        })?;
        Ok(is_public.then(|| "--acme".to_owned()))
    }

    /// Asks until the answer is right.
    fn one<T>(&mut self, prompt: &str, parse: impl Fn(&str) -> Result<T, String>) -> io::Result<T> {
        loop {
            match parse(&self.line(prompt)?) {
                Ok(value) => return Ok(value),
                Err(problem) => writeln!(self.output, "   {problem}")?,
            }
        }
    }

    /// Asks for at least one and at most `most` values, no two with the same name, until an empty line.
    fn several(
        &mut self,
        option: &str,
        prompt: &str,
        most: usize,
        name: impl Fn(&str) -> Result<String, String>,
    ) -> io::Result<Vec<String>> {
        let (mut options, mut names) = (Vec::new(), Vec::new());
        while names.len() < most {
            let prompt =
                if names.is_empty() { format!("{prompt}: ") } else { format!("{prompt} (Enter alone: no more): ") };
            let answer = self.line(&prompt)?;
            if answer.is_empty() && !names.is_empty() {
                break;
            }
            match name(&answer).map(|name| name.to_ascii_lowercase()) {
                Ok(name) if names.contains(&name) => writeln!(self.output, "   {name} is there already")?,
                Ok(name) => {
                    names.push(name);
                    options.extend([option.to_owned(), answer]);
                }
                Err(problem) => writeln!(self.output, "   {problem}")?,
            }
        }
        Ok(options)
    }

    fn line(&mut self, prompt: &str) -> io::Result<String> {
        write!(self.output, "{prompt}")?;
        self.output.flush()?;
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            writeln!(self.output)?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options that these lines lead to, and what was said.
    fn ask(lines: &[&str]) -> (io::Result<Vec<String>>, String) {
        let mut output = Vec::new();
        let input = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let options = Questions { input: input.as_bytes(), output: &mut output }.ask();
        (options, String::from_utf8(output).expect("UTF-8"))
    }

    #[test]
    fn answers_become_the_options() {
        let (options, said) = ask(&["home.example", "", "nas=192.168.1.10:5666", "", "alice-phone", "", ""]);
        let expected = ["--domain", "home.example", "--route", "nas=192.168.1.10:5666", "--device", "alice-phone"];
        assert_eq!(options.expect("options"), expected);
        assert!(said.contains("\n6. ") && !said.contains("\n7. "), "{said}");
        // Reserved names have no choice.
        assert!(said.contains("no public one does") && !said.contains("own or public"), "{said}");

        let answers = [
            "https://alice.duckdns.org/",
            "no",
            "ssh=192.168.1.10:2222,kind=ssh",
            "a",
            "b",
            "",
            "8443",
            "maybe",
            "public",
        ];
        let (options, said) = ask(&answers);
        for needed in ["as well as port 8443", "answer own or public", TERMS] {
            assert!(said.contains(needed), "{needed} is missing in\n{said}");
        }
        let expected = [
            "--domain",
            "alice.duckdns.org",
            "--no-wildcard",
            "--route",
            "ssh=192.168.1.10:2222,kind=ssh",
            "--device",
            "a",
            "--device",
            "b",
            "--public-port",
            "8443",
            "--acme",
        ];
        assert_eq!(options.expect("options"), expected);
    }

    #[test]
    fn wrong_answer_is_explained_and_asked_again() {
        let (options, said) = ask(&[
            "",
            "home",
            "home.example",
            "maybe",
            "y",
            "",
            "nas",
            "nas=a:1",
            "NAS=b:2",
            "",
            "any",
            "x",
            "",
            "0",
            "",
        ]);
        let expected = ["--domain", "home.example", "--route", "nas=a:1", "--device", "x"];
        assert_eq!(options.expect("options"), expected);
        for needed in [
            "DuckDNS",
            "needs a dot",
            "answer yes or no",
            "missing \"=\"",
            "nas is there already",
            "reserved",
            "from 1 to 65535",
        ] {
            assert!(said.contains(needed), "{needed} is missing in\n{said}");
        }
    }

    #[test]
    fn end_of_input_writes_nothing() {
        let (options, _) = ask(&["home.example", "yes"]);
        assert_eq!(options.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
    }
}
