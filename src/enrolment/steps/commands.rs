//! The commands and the ssh configuration that the page shows, ready to be copied.

use std::fmt::Write as _;

use super::Instructions;
use crate::enrolment::{Form, ROOT_FILE};
use crate::model::shell::word;

impl Instructions {
    /// The commands for the store that Chromium reads on Linux.
    pub(super) fn nss(&self) -> String {
        let archive = self.file(Form::Archive);
        format!(
            "pk12util -d sql:$HOME/.pki/nssdb -i {}\ncertutil -d sql:$HOME/.pki/nssdb -A -t C,, -n doorward -i {}",
            word(&archive),
            word(ROOT_FILE)
        )
    }

    pub(super) fn curl(&self) -> String {
        let [certificate, key] = [Form::Certificate, Form::Key].map(|form| self.file(form));
        format!(
            "curl --cacert {} --cert {} --key {} {}",
            word(ROOT_FILE),
            word(&certificate),
            word(&key),
            word(&self.example_url)
        )
    }

    pub(super) fn curl_archive(&self) -> String {
        let archive = format!("{}:PASSWORD", self.file(Form::Archive));
        format!(
            "curl --cacert {} --cert-type P12 --cert {} {}",
            word(ROOT_FILE),
            word(&archive),
            word(&self.example_url)
        )
    }

    /// The section of `~/.ssh/config`. The manual explains each option.
    pub(super) fn ssh_host(&self) -> String {
        let hosts: Vec<String> = self.ssh_names.iter().map(ToString::to_string).collect();
        format!(
            "Host {}\n  ProxyCommand openssl s_client -quiet -verify_quiet -verify_return_error -verify_hostname %h \
             -servername %h -connect %h:{} -CAfile ~/doorward/{ROOT_FILE} -cert ~/doorward/{} -key ~/doorward/{}\n",
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
        let _ = writeln!(out, "#   {ROOT_FILE} {certificate} {key}");
        if self.ssh_names.is_empty() {
            return format!(
                "# OpenSSH on {}: none of your routes leads to an SSH server, so there is nothing to append to ~/.ssh/config.\n\
                 # If one does, write kind = \"ssh\" below its [[route]], and: doorward ca renew {}\n",
                self.device,
                word(self.device.as_str())
            );
        }
        out.push_str(&self.ssh_host());
        out
    }
}
