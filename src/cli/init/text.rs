//! What `doorward init` says: the page and the next steps first, the files last.

use std::fmt::Write as _;

use super::Written;
use crate::model::shell;

impl Written {
    /// What to do next and what was written, as text for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let (config, folder) = (shell::path(&self.config), shell::path(&self.folder));
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "The gate is ready to be started. What it does is on its page, on this machine, once it runs:
  {}

Next:
  1. Start it:
       doorward run --config {config}
     Or as a service, which starts with the machine:
       sudo doorward install {folder}
{}  3. Set up each device. Its page has the instructions for every system; the files are in the same folder:
",
            self.page,
            self.router(),
        );
        for device in &self.devices {
            // The files have names in ASCII.
            let is_in_path = device.steps.file_stem().is_some_and(|stem| stem == device.name.as_str());
            let name = if is_in_path { String::new() } else { format!("   for {}", device.name) };
            let _ = writeln!(out, "       {}{name}\n         password  {}", device.steps.display(), device.password);
        }
        let first = self.devices.first().map_or("NAME", |device| &device.name);
        let first = shell::word(first);
        let _ = write!(
            out,
            "     Or let a device download its files in your home network, by a link:
       doorward share {first} --folder {folder}
     The passwords are shown only now and stored nowhere.

If a device is refused, ask the gate why: doorward why --config {config}

Created in {}:
",
            self.folder.display()
        );
        for file in &self.files {
            let path = file.path.strip_prefix(&self.folder).unwrap_or(&file.path).display().to_string();
            let note = if file.mode == "0600" { "secret" } else { "" };
            out.push_str(format!("  {path:<40} {note}").trim_end());
            out.push('\n');
        }
        out.push_str("Keep the files marked secret private.\n");
        out
    }

    /// The second step.
    fn router(&self) -> String {
        let (port, public_port) = (self.listen.port(), self.public_port);
        let mut out = format!("  2. In your router, forward TCP port {public_port} to port {port} of this machine.");
        let names = self.server_names.join(", ");
        if self.no_wildcard {
            let _ = write!(
                out,
                " Point the name to your router (dynamic DNS):
       {names}
     The name leads to one service. For more, names below it have to lead to your router as well: then leave out
     --no-wildcard.
"
            );
        } else {
            let _ = write!(
                out,
                " Point these names to your router, in the DNS of your\n     domain or with dynamic DNS:
       {names}
     If only the domain itself can lead to your router, as with some dynamic DNS services: init with --no-wildcard.
"
            );
        }
        out.push_str(self.needed_to_order.as_deref().unwrap_or_default());
        out
    }
}
