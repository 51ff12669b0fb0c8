//! The commands and the ssh configuration that the page shows, ready to be copied.

use std::fmt::Write as _;

use super::Instructions;
use crate::enrolment::{Form, ROOT_FILE};
use crate::model::shell::word;

impl Instructions {
    /// The commands for the store that Chromium reads on Linux.
    pub(super) fn nss(&self) -> String {
        let mut out = format!("pk12util -d sql:$HOME/.pki/nssdb -i {}", word(&self.file(Form::Archive)));
        if self.root.is_some() {
            out.push_str(&format!("\ncertutil -d sql:$HOME/.pki/nssdb -A -t C,, -n doorward -i {}", word(ROOT_FILE)));
        }
        out
    }

    pub(super) fn curl(&self) -> String {
        let [certificate, key] = [Form::Certificate, Form::Key].map(|form| self.file(form));
        format!(
            "{} --cert {} --key {} {}",
            self.curl_with_trust(),
            word(&certificate),
            word(&key),
            word(&self.example_url)
        )
    }

    pub(super) fn curl_archive(&self) -> String {
        let archive = format!("{}:PASSWORD", self.file(Form::Archive));
        format!("{} --cert-type P12 --cert {} {}", self.curl_with_trust(), word(&archive), word(&self.example_url))
    }

    /// curl trusts what its system does, unless it is told otherwise.
    fn curl_with_trust(&self) -> String {
        if self.root.is_some() { format!("curl --cacert {}", word(ROOT_FILE)) } else { "curl".to_owned() }
    }

    /// The section of `~/.ssh/config`. The manual explains each option.
    pub(super) fn ssh_host(&self) -> String {
        let hosts: Vec<String> = self.ssh_names.iter().map(ToString::to_string).collect();
        // Without -CAfile, OpenSSL and LibreSSL trust what their system does.
        let authorities = if self.root.is_some() { format!("-CAfile ~/doorward/{ROOT_FILE} ") } else { String::new() };
        format!(
            "Host {}\n  ProxyCommand openssl s_client -quiet -verify_quiet -verify_return_error -verify_hostname %h \
             -servername %h -connect %h:{} {authorities}-cert ~/doorward/{} -key ~/doorward/{}\n",
            hosts.join(" "),
            self.port,
            word(&self.file(Form::Certificate)),
            word(&self.file(Form::Key)),
        )
    }

    /// The file with this section: a comment says what to do with it.
    pub(in crate::enrolment) fn ssh_config(&self) -> String {
        let mut out = format!("# OpenSSH on {}. Append this to ~/.ssh/config, and put into ~/doorward:\n", self.device);
        let [certificate, key] = [Form::Certificate, Form::Key].map(|form| self.file(form));
        let authority = if self.root.is_some() { format!("{ROOT_FILE} ") } else { String::new() };
        let _ = writeln!(out, "#   {authority}{certificate} {key}");
        if self.ssh_names.is_empty() {
            return format!(
                "# OpenSSH on {}: none of your routes leads to an SSH server, so there is nothing to append to ~/.ssh/config.\n\
                 # If one does, write kind = \"ssh\" below its [[route]], and: doorward ca renew {}\n",
                self.device,
                word(self.device.as_str())
            );
        }
        out.push_str(
            "# On a Mac, openssl is LibreSSL, which knows neither -verify_quiet nor -verify_hostname. Use \"doorward join\" there, or\n\
             # write $(brew --prefix openssl)/bin/openssl instead of openssl, after: brew install openssl\n",
        );
        out.push_str(&self.ssh_host());
        out
    }
}
