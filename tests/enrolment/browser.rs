//! Chromium, controlled with the Chrome DevTools Protocol over a pipe (`--remote-debugging-pipe`: it reads from descriptor 3
//! and writes to 4, and each message ends with a zero byte).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::common::DEADLINE;
use crate::common::process::{Daemon, run, wait_until};
use crate::home::Home;

pub(crate) struct Browser {
    _chromium: Daemon,
    to: File,
    from: Receiver<Value>,
    sent: u64,
    page: Option<String>,
    downloads: PathBuf,
}

impl Browser {
    /// Opens `url` and waits until it is loaded.
    #[track_caller]
    pub(crate) fn open(home: &Home, url: &str) -> Self {
        run(home.tool("mkfifo", "coreutils").args(["to", "from"])).success();
        // For reading and writing, so that opening it does not wait for the other side.
        let fifo = |name: &str| OpenOptions::new().read(true).write(true).open(home.path(name)).unwrap();
        let (to, held) = (fifo("to"), fifo("from"));
        let pipe = File::open(home.path("from")).unwrap();
        let chromium = format!("exec {} --remote-debugging-pipe about:blank 3<to 4>from", home.chromium());
        let mut command = home.tool("bash", "bash");
        let chromium = Daemon::start_until(command.args(["-euc", &chromium]), "it is started", || true);
        let (tell, from) = channel();
        std::thread::spawn(move || {
            // Ends with Chromium, the only writer.
            for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let downloads = home.path("downloads");
        std::fs::create_dir(&downloads).unwrap();
        let mut browser = Self { _chromium: chromium, to, from, sent: 0, page: None, downloads };
        let behaviour = json!({"behavior": "allow", "downloadPath": browser.downloads});
        browser.call("Browser.setDownloadBehavior", behaviour);
        drop(held);
        let target = browser.call("Target.createTarget", json!({"url": url}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.page = Some(attached["sessionId"].as_str().unwrap().to_owned());
        wait_until("the page is there", || {
            let there = format!("document.readyState == 'complete' && location.href.startsWith({})", json!(url));
            (browser.evaluate(&there) == true).then_some(())
        });
        browser
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        self.call("Runtime.evaluate", json!({"expression": expression}))["result"]["value"].clone()
    }

    /// Waits for a file that it has saved.
    #[track_caller]
    pub(crate) fn saved(&self, name: &str) -> PathBuf {
        // During the download it has another name.
        wait_until(&format!("{name} is saved"), || Some(self.downloads.join(name)).filter(|file| file.exists()))
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": params});
        if let Some(page) = &self.page {
            message["sessionId"] = json!(page);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.from.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no answer to {message}"));
            if answer["id"] == self.sent {
                assert!(answer.get("error").is_none(), "{answer}");
                return answer["result"].clone();
            }
        }
    }
}
