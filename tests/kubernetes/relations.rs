//! What the manifests say of each other and of the gate. No schema knows this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use doorward::config;
use doorward::config::checked::{Backend, Config};
use doorward::telemetry::names;
use serde_json::{Value, json};

use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Certified, TestPki};
use crate::deploy;
use crate::manifests::example;
use crate::pod::Keys;

/// The documents by kind and name.
struct Manifests(BTreeMap<(String, String), &'static Value>);

impl Manifests {
    fn example() -> Self {
        let key = |document: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&document["kind"]), text(&document["metadata"]["name"]))
        };
        Self(example().iter().map(|document| (key(document), document)).collect())
    }

    #[track_caller]
    fn get(&self, kind: &str, name: &str) -> &'static Value {
        self.0[&(kind.to_owned(), name.to_owned())]
    }

    fn pod(&self) -> &'static Value {
        &self.get("Deployment", "doorward")["spec"]["template"]
    }

    fn container(&self) -> &'static Value {
        &self.pod()["spec"]["containers"][0]
    }
}

/// The files of the example as the gate finds them in its container, below `root`; loaded.
fn load(pki: &TestPki, manifests: &Manifests, root: &Path) -> Config {
    let folder = |name: &str| {
        let folder = root.join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    for (name, map) in [("config", "doorward-config"), ("clients", "doorward-clients")] {
        let folder = folder(name);
        for (file, text) in manifests.get("ConfigMap", map)["data"].as_object().unwrap() {
            std::fs::write(folder.join(file), text.as_str().unwrap()).unwrap();
        }
    }
    let server = folder("server");
    let issued = pki.servers.issue(Certified::for_servers(&["*.home.example"]));
    std::fs::write(server.join("tls.crt"), issued.chain_pem()).unwrap();
    std::fs::write(server.join("tls.key"), issued.key_pem()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o440);
    std::fs::set_permissions(server.join("tls.key"), mode).unwrap();
    let tickets = folder("tickets");
    for (name, contents) in Keys::new().files() {
        std::fs::write(tickets.join(name), contents).unwrap();
        std::fs::set_permissions(tickets.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    }
    config::load(&root.join("config/doorward.toml")).unwrap()
}

#[test]
fn every_selector_selects_the_pods_of_the_gate() {
    let manifests = Manifests::example();
    let labels = manifests.pod()["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"app.kubernetes.io/name": "doorward"}));
    let [deployment, service, budget, policy, monitor] =
        ["Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"]
            .map(|kind| &manifests.get(kind, "doorward")["spec"]);
    let selectors = [
        &deployment["selector"]["matchLabels"],
        &service["selector"],
        &budget["selector"]["matchLabels"],
        &policy["podSelector"]["matchLabels"],
        &monitor["selector"]["matchLabels"],
        &manifests.pod()["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ];
    for selector in selectors {
        assert_eq!(*selector, labels);
    }
    // Those of other pods are left alone by kustomize.
    assert_eq!(policy["egress"][0]["to"][0]["podSelector"]["matchLabels"], json!({"k8s-app": "kube-dns"}));
    assert_eq!(policy["ingress"][1]["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], "prometheus");
    // The autoscaler's target exists, and no number of replicas disagrees with it.
    let scaler = &manifests.get("HorizontalPodAutoscaler", "doorward")["spec"];
    assert_eq!(scaler["scaleTargetRef"], json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "doorward"}));
    assert_eq!(deployment["replicas"], Value::Null);
    for ((kind, name), document) in &manifests.0 {
        let namespace = if kind == "Namespace" { Value::Null } else { "doorward".into() };
        assert_eq!(document["metadata"]["namespace"], namespace, "{kind} {name}");
    }
}

#[test]
fn ports_and_networks_are_those_of_the_configuration() {
    let (pki, root) = (TestPki::new(), tempfile::tempdir().unwrap());
    let manifests = Manifests::example();
    let config = load(&pki, &manifests, root.path());
    // The NetworkPolicy is the firewall of this warning.
    let warned: Vec<&str> = config.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(warned, ["metrics.address"]);
    let container = manifests.container();
    let ports: BTreeMap<&str, u64> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_u64().unwrap()))
        .collect();
    let metrics = config.metrics.address.unwrap();
    let own = [("metrics", u64::from(metrics.port())), ("tls", u64::from(config.listeners[0].address.port()))];
    assert_eq!(ports, BTreeMap::from(own));
    assert!(metrics.ip().is_unspecified() && config.listeners[0].address.ip().is_unspecified());
    assert_eq!(manifests.get("Service", "doorward")["spec"]["ports"][0]["targetPort"], "tls");
    let endpoint = &manifests.get("PodMonitor", "doorward")["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], "metrics");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "metrics", "{probe}");
    }

    // Outside, only the gate's own port is open; inside, only what the routes name.
    let policy = &manifests.get("NetworkPolicy", "doorward")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    let open: Vec<&Value> =
        policy["ingress"].as_array().unwrap().iter().filter(|rule| rule["from"].is_null()).collect();
    assert_eq!(open, [&json!({"ports": [{"port": "tls", "protocol": "TCP"}]})]);
    let backends: BTreeSet<String> = config
        .routes
        .iter()
        .flat_map(|route| &route.backends)
        .map(|backend| match backend {
            Backend::Address(address) => address.to_string(),
            other => panic!("the policy has no rule for {other}"),
        })
        .collect();
    let mut reachable = BTreeSet::new();
    for rule in &policy["egress"].as_array().unwrap()[1..] {
        let network = rule["to"][0]["ipBlock"]["cidr"].as_str().unwrap().strip_suffix("/32").unwrap();
        reachable.extend(rule["ports"].as_array().unwrap().iter().map(|port| format!("{network}:{}", port["port"])));
    }
    assert_eq!(reachable, backends);
}

#[test]
fn mounted_folders_are_whole_and_have_what_the_configuration_names() {
    let (pki, root) = (TestPki::new(), tempfile::tempdir().unwrap());
    let manifests = Manifests::example();
    let config = load(&pki, &manifests, root.path());
    let (container, volumes) = (manifests.container(), &manifests.pod()["spec"]["volumes"]);
    let mut folders = BTreeMap::new();
    for mount in container["volumeMounts"].as_array().unwrap() {
        assert_eq!(mount["subPath"], Value::Null, "kubelet does not update it: {mount}");
        folders.insert(mount["name"].as_str().unwrap(), mount["mountPath"].as_str().unwrap());
    }
    let names: Vec<&str> = volumes.as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), folders.keys().copied().collect());
    assert_eq!(folders["run"], "/run/doorward");
    let socket = config.control.socket.path(None).unwrap();
    assert!(socket.starts_with(folders["run"]), "{}", socket.display());
    assert_eq!(container["args"], json!(["run", "--config", format!("{}/doorward.toml", folders["config"])]));
    // Each file is in a folder that is mounted beside that of the configuration.
    for file in config.files() {
        let file = std::fs::canonicalize(file).unwrap();
        let place = Path::new("/etc/doorward").join(file.strip_prefix(root.path().canonicalize().unwrap()).unwrap());
        let folder = place.parent().unwrap().to_str().unwrap();
        assert!(folders.values().any(|mounted| *mounted == folder), "{}", place.display());
    }
    for volume in volumes.as_array().unwrap() {
        // A name with a hash would make a change a restart of every replica.
        if let Some(map) = volume["configMap"]["name"].as_str() {
            manifests.get("ConfigMap", map);
        }
        // Owner and group of the gate, and no other user.
        if volume["secret"].is_object() {
            assert_eq!(volume["secret"]["defaultMode"], 0o440, "{volume}");
        }
    }
}

#[test]
fn grace_period_is_longer_than_the_drain() {
    let (pki, root) = (TestPki::new(), tempfile::tempdir().unwrap());
    let manifests = Manifests::example();
    let drain = load(&pki, &manifests, root.path()).timeouts.drain.as_secs();
    let stop = manifests.container()["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    let grace = manifests.pod()["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    // As much as systemd is asked for: timeouts.drain, and 15 seconds to cut what is left and to end.
    assert!(grace >= stop + drain + 15, "{grace} s for {stop} s before SIGTERM and {drain} s after it");
}

/// The profile "restricted" of the Pod Security Standards, rule by rule, and what goes beyond it.
#[test]
fn pod_is_confined() {
    let manifests = Manifests::example();
    let (pod, container) = (&manifests.pod()["spec"], manifests.container());
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
    for absent in ["initContainers", "hostNetwork", "hostPID", "hostIPC", "hostAliases"] {
        assert_eq!(pod[absent], Value::Null, "{absent}");
    }
    for volume in pod["volumes"].as_array().unwrap() {
        let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        assert!(["configMap", "secret", "emptyDir"].contains(&kinds[0].as_str()) && kinds.len() == 1, "{volume}");
    }
    for port in container["ports"].as_array().unwrap() {
        assert_eq!(port["hostPort"], Value::Null);
        assert!(port["containerPort"].as_u64().unwrap() >= 1024, "it needs no capability: {port}");
    }
    let whole = &pod["securityContext"];
    assert_eq!(whole["runAsNonRoot"], true);
    assert!([&whole["runAsUser"], &whole["runAsGroup"], &whole["fsGroup"]].iter().all(|id| id.as_u64() > Some(0)));
    assert_eq!(whole["seccompProfile"], json!({"type": "RuntimeDefault"}));
    let own = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], own);
    assert_eq!(pod["automountServiceAccountToken"], false);
    let image = container["image"].as_str().unwrap();
    assert!(image.ends_with(concat!("/doorward:", env!("CARGO_PKG_VERSION"))), "{image}");
    let enforced = &manifests.get("Namespace", "doorward")["metadata"]["labels"];
    assert_eq!(enforced["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn probes_are_answered_and_the_autoscaler_has_its_metric() {
    let pki = TestPki::new();
    let manifests = Manifests::example();
    let gate = Gate::start(&format!(
        "{LOCAL}{}\n[[route]]\nname = \"nas\"\nserver_names = [\"nas.home.example\"]\nbackends = [\"127.0.0.1:1\"]\n\
         allow = [\"any\"]\n",
        pki.config()
    ));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let path = manifests.container()[probe]["httpGet"]["path"].as_str().unwrap();
        assert_eq!(gate.get(path).0, 200, "{probe}");
    }
    let endpoint = &manifests.get("PodMonitor", "doorward")["spec"]["podMetricsEndpoints"][0];
    assert_eq!(gate.get(endpoint["path"].as_str().unwrap()).0, 200);
    let metric = &manifests.get("HorizontalPodAutoscaler", "doorward")["spec"]["metrics"][0]["pods"]["metric"]["name"];
    let values =
        std::fs::read_to_string(deploy().join("components/autoscaling/prometheus-adapter.values.yaml")).unwrap();
    assert!(values.contains(&format!("as: {}\n", metric.as_str().unwrap())));
    let series = values.split_once("seriesQuery: ").unwrap().1.split_once('{').unwrap().0;
    assert!(names::ALL.iter().any(|(name, ..)| *name == series), "{series}");
    // What it is made of is shown by tests/observe/prometheus.rs.
}
