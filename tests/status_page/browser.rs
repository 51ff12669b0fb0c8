//! The page in Chromium: without barriers, and as its reader left it after a refresh.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::DEADLINE;
use crate::common::process::{Finished, run, run_for, tool};
use crate::scene::{Scene, scan};

/// What checks the page, with its packages, in a folder below `target/` that later runs find again.
fn checker() -> PathBuf {
    // One test installs it, the others find it.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/status_page");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status_page");
    let lock = std::fs::read(sources.join("package-lock.json")).unwrap();
    let installed = folder.join("installed");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json", "browser.mjs", "check.mjs", "refresh.mjs", "picture.mjs"] {
        let (source, place) = (std::fs::read(sources.join(file)).unwrap(), folder.join(file));
        // Another test may be reading it.
        if std::fs::read(&place).ok().as_ref() != Some(&source) {
            std::fs::write(place, source).unwrap();
        }
    }
    if std::fs::read(&installed).ok().as_ref() != Some(&lock) {
        // Exactly what the lock file names, by its hash, and none of it is run while it is installed.
        let mut npm = tool("npm", "npm");
        run(npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder)).success();
        std::fs::write(installed, lock).unwrap();
    }
    folder
}

#[track_caller]
fn node(script: &str, arguments: &[&str]) -> Finished {
    // One browser at a time: each needs more than a processor.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tool("chromium", "chromium");
    // As often as it begins anew with another browser, and each may take a minute on a busy machine.
    run_for(tool("node", "nodejs").arg(checker().join(script)).args(arguments), 12 * DEADLINE)
}

#[track_caller]
fn assert_has_no_barriers(scene: &Scene, verdict: &str) {
    node("check.mjs", &[&scene.url(), verdict]).success();
}

#[test]
fn page_of_a_new_gate_has_no_barriers() {
    assert_has_no_barriers(&Scene::new(), "new");
}

#[test]
fn page_of_a_calm_gate_has_no_barriers() {
    assert_has_no_barriers(&Scene::calm(), "ok");
}

#[test]
fn page_in_trouble_has_no_barriers() {
    assert_has_no_barriers(&Scene::trouble(), "bad");
}

/// The tests above would notice.
#[test]
fn barriers_are_noticed() {
    let page =
        "<!DOCTYPE html><html><title>x</title><div id=verdict class=ok><img src=\"http://127.0.0.1:9/x.png\"></div>";
    let backend = crate::common::backend::Backend::http(page);
    let checked = node("check.mjs", &[&format!("http://{}/", backend.address()), "ok"]).failure();
    for complaint in [
        "axe, light, 1280: image-alt",
        "axe, dark, 390: html-has-lang",
        "html 1:",
        "the verdict is ok",
        "requested http://127.0.0.1:9",
    ] {
        assert!(checked.text().contains(complaint), "{complaint} in {checked}");
    }
}

#[test]
fn refresh_keeps_selection_scroll_focus_and_open_details() {
    let scene = Scene::trouble();
    let (gate, done) = (scene.gate.address(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // So that there is something new on the page.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                scan(gate);
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
        });
        let finished = node("refresh.mjs", &[&scene.url()]);
        done.store(true, Ordering::Relaxed);
        finished.success();
    });
}
