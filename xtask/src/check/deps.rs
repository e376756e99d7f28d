//! Who may depend on whom: the table of the architecture, checked on cargo's own view of the workspace.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{process, workspace};

/// A member and the members that it must never reach, neither directly nor through another.
const NEVER: &[(&str, &[&str])] = &[
    (
        "gosync-proto",
        &["gosync-server", "gosync-client", "gosync-conformance"],
    ),
    ("gosync-server", &["gosync-client", "gosync-conformance"]),
    ("gosync-client", &["gosync-server", "gosync-conformance"]),
    // The suite judges others by the specification alone: shared code would share its mistakes.
    (
        "gosync-conformance",
        &["gosync-proto", "gosync-server", "gosync-client"],
    ),
];

/// What a member may ask for itself, outside of its tests. A dependency that is not here is a decision: it comes with its
/// reason in Cargo.toml, and with a word in this list.
const MAY: &[(&str, &str)] = &[
    (
        "gosync-proto",
        "bytes prost sha2 thiserror tonic tonic-prost",
    ),
    (
        "gosync-server",
        "axum base64 bytes clap futures getrandom gosync-proto http humantime hyper hyper-util prometheus-client prost \
         prost-types rusqlite rustls serde sha2 strsim subtle thiserror tokio tokio-rustls tokio-stream tokio-util toml \
         tonic tonic-health tonic-reflection tonic-web tower tower-http tracing tracing-subscriber",
    ),
    (
        "gosync-client",
        "bytes futures getrandom gosync-proto js-sys prost prost-types rusqlite serde serde_json thiserror tokio tonic \
         tonic-web-wasm-client wasm-bindgen wasm-bindgen-futures web-sys web-time",
    ),
    (
        "gosync-conformance",
        "base64 bytes clap flate2 futures http http-body http-body-util hyper hyper-util prost prost-build prost-reflect \
         protox serde serde_json sha2 thiserror tokio tokio-tungstenite",
    ),
];

/// What the rules must stay free of: runtimes, clocks, randomness, input and output.
const IMPURE: &[&str] = &[
    "async-std",
    "chrono",
    "fastrand",
    "futures-timer",
    "getrandom",
    "h2",
    "hyper",
    "instant",
    "js-sys",
    "mio",
    "rand",
    "rand_core",
    "rusqlite",
    "smol",
    "socket2",
    "time",
    "tokio",
    "wasm-bindgen",
    "web-sys",
    "web-time",
];

/// What people install or link: it never asks for the deliberate errors of `gosync_proto::mutant`, so that a build of it
/// has none. A build of several members at once has what any of them asks for: with `--workspace` that is for tests.
const INSTALLED: &[&str] = &["gosync-proto", "gosync-server", "gosync-client"];

/// Checks the whole table.
pub fn check() -> Result<()> {
    let graph = Graph::of_metadata(&metadata()?)?;
    let mut problems = graph.violations(NEVER);
    problems.extend(graph.undecided(MAY));
    problems.extend(graph.enabled_stubs());
    problems.extend(impure(&tree(&["--package", "gosync-proto"], "{p}")?));
    for member in INSTALLED {
        let tree = tree(&["--package", member], "{p} {f}")?;
        problems.extend(mutants(member, &tree));
    }
    problems.extend(mutants(
        "a build without --workspace",
        &tree(&[], "{p} {f}")?,
    ));
    super::none("forbidden dependencies", &problems)
}

fn metadata() -> Result<String> {
    process::output(workspace::cargo().current_dir(workspace::root()).args([
        "metadata",
        "--format-version=1",
        "--no-deps",
    ]))
}

/// What the members bring along that `which` chooses, the default ones if none. One is asked for alone: in the whole
/// workspace, features that others switch on would count against it.
fn tree(which: &[&str], format: &str) -> Result<String> {
    process::output(
        workspace::cargo()
            .current_dir(workspace::root())
            .arg("tree")
            .args(which)
            .args([
                "--edges",
                "normal,build",
                "--target",
                "all",
                "--prefix",
                "none",
                "--format",
                format,
            ]),
    )
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Deserialize)]
struct Dependency {
    name: String,
    /// None for a normal dependency.
    kind: Option<String>,
    optional: bool,
}

/// The members of the workspace and what each asks for.
struct Graph {
    members: BTreeMap<String, Package>,
}

impl Graph {
    fn of_metadata(json: &str) -> Result<Self> {
        let metadata: Metadata =
            serde_json::from_str(json).context("what `cargo metadata` printed")?;
        Ok(Self {
            members: metadata
                .packages
                .into_iter()
                .map(|package| (package.name.clone(), package))
                .collect(),
        })
    }

    fn violations(&self, never: &[(&str, &[&str])]) -> Vec<String> {
        let mut found = Vec::new();
        for (member, forbidden) in never {
            let Some(package) = self.members.get(*member) else {
                found.push(format!("{member} is not a member of the workspace"));
                continue;
            };
            // Its own tests count; those of the crates that it depends on are never built with it.
            for dependency in &package.dependencies {
                let mut reached =
                    BTreeMap::from([(dependency.name.as_str(), (*member).to_owned())]);
                self.reach(&dependency.name, member, &mut reached);
                for (name, path) in reached.iter().filter(|(name, _)| forbidden.contains(name)) {
                    let kind = dependency.kind.as_deref().unwrap_or("normal");
                    found.push(format!(
                        "{member} must not depend on {name} ({path} -> {name}, {kind})"
                    ));
                }
            }
        }
        found
    }

    /// What members ask for that nobody decided, and what the list allows in vain.
    fn undecided(&self, may: &[(&str, &str)]) -> Vec<String> {
        let mut found = Vec::new();
        for (member, allowed) in may {
            let dependencies = self.members.get(*member).map(|p| &p.dependencies[..]);
            let asked: BTreeSet<&str> = dependencies
                .unwrap_or_default()
                .iter()
                .filter(|d| d.kind.as_deref() != Some("dev"))
                .map(|d| d.name.as_str())
                .collect();
            let allowed: BTreeSet<&str> = allowed.split_whitespace().collect();
            let new = asked.difference(&allowed);
            found.extend(new.map(|name| {
                format!("{member} may not depend on {name} (see MAY in check/deps.rs)")
            }));
            let gone = allowed.difference(&asked);
            found.extend(gone.map(|name| {
                format!("{member} no longer asks for {name}: take it from MAY in check/deps.rs")
            }));
        }
        found
    }

    /// Adds the members that `from` brings along, each with the path to it.
    fn reach<'a>(&'a self, from: &str, path: &str, reached: &mut BTreeMap<&'a str, String>) {
        let Some(package) = self.members.get(from) else {
            return;
        };
        let path = format!("{path} -> {from}");
        for next in package
            .dependencies
            .iter()
            .filter(|next| next.kind.as_deref() != Some("dev"))
        {
            if !reached.contains_key(next.name.as_str()) {
                reached.insert(&next.name, path.clone());
                self.reach(&next.name, &path, reached);
            }
        }
    }

    /// The gRPC stubs of gosync-proto are for those who ask: without features it is messages and rules only.
    fn enabled_stubs(&self) -> Vec<String> {
        let Some(proto) = self.members.get("gosync-proto") else {
            return Vec::new();
        };
        let mut found: Vec<String> = proto
            .dependencies
            .iter()
            .filter(|d| d.kind.is_none() && d.name.starts_with("tonic") && !d.optional)
            .map(|d| format!("gosync-proto must take {} behind a feature only", d.name))
            .collect();
        if proto
            .features
            .get("default")
            .is_some_and(|default| !default.is_empty())
        {
            found.push("gosync-proto must have no default features".to_owned());
        }
        found
    }
}

/// The packages of a `cargo tree` that bring a runtime, a clock, randomness or input and output.
fn impure(tree: &str) -> Vec<String> {
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let found = names.into_iter().filter(|name| IMPURE.contains(name));
    found.map(|name| format!("gosync-proto must not depend on {name} (see `cargo tree -p gosync-proto -i {name}`)")).collect()
}

/// Whether a build has deliberate errors, from its tree with features.
fn mutants(member: &str, tree: &str) -> Option<String> {
    let asked = tree.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("gosync-proto")
            && words.any(|word| word.split(',').any(|feature| feature == "mutants"))
    });
    asked.then(|| format!("{member} must not switch on the feature `mutants` of gosync-proto"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `("a", [("b", kind)])`: a depends on b.
    fn graph(members: &[(&str, &[(&str, &str)])]) -> Graph {
        let members = members.iter().map(|(name, dependencies)| {
            let dependencies = dependencies.iter().map(|(name, kind)| Dependency {
                name: (*name).to_owned(),
                kind: (*kind != "normal").then(|| (*kind).to_owned()),
                optional: false,
            });
            let package = Package {
                name: (*name).to_owned(),
                dependencies: dependencies.collect(),
                features: BTreeMap::new(),
            };
            ((*name).to_owned(), package)
        });
        Graph {
            members: members.collect(),
        }
    }

    #[test]
    fn the_workspace_keeps_the_table() {
        check().unwrap();
    }

    #[test]
    fn a_forbidden_dependency_of_any_kind_is_found() {
        for kind in ["normal", "dev", "build"] {
            let graph = graph(&[
                ("suite", &[("serde", "normal"), ("rules", kind)]),
                ("rules", &[]),
            ]);
            let found = graph.violations(&[("suite", &["rules"])]);
            assert_eq!(
                found,
                [format!(
                    "suite must not depend on rules (suite -> rules, {kind})"
                )]
            );
        }
    }

    #[test]
    fn a_forbidden_dependency_is_found_through_others() {
        let graph = graph(&[
            ("suite", &[("shim", "normal")]),
            ("shim", &[("rules", "build")]),
            ("rules", &[]),
        ]);
        assert_eq!(
            graph.violations(&[("suite", &["rules"])]),
            ["suite must not depend on rules (suite -> shim -> rules, normal)"]
        );
    }

    #[test]
    fn the_tests_of_a_dependency_do_not_count() {
        let graph = graph(&[
            ("suite", &[("shim", "normal")]),
            ("shim", &[("rules", "dev")]),
            ("rules", &[]),
        ]);
        assert_eq!(graph.violations(&[("suite", &["rules"])]), [""; 0]);
    }

    #[test]
    fn members_that_depend_on_each_other_in_tests_are_no_endless_loop() {
        let graph = graph(&[("a", &[("b", "dev")]), ("b", &[("a", "normal")])]);
        assert_eq!(graph.violations(&[("a", &["c"]), ("b", &["c"])]), [""; 0]);
    }

    #[test]
    fn a_rule_about_a_crate_that_is_gone_is_an_error() {
        assert_eq!(
            graph(&[]).violations(&[("a", &["b"])]),
            ["a is not a member of the workspace"]
        );
    }

    #[test]
    fn a_dependency_that_nobody_decided_is_found_and_one_that_is_gone_too() {
        let graph = graph(&[(
            "suite",
            &[
                ("serde", "normal"),
                ("left-pad", "build"),
                ("proptest", "dev"),
            ],
        )]);
        let found = graph.undecided(&[("suite", "serde hyper")]);
        let told: Vec<_> = found.iter().map(|f| f.split(" (").next()).collect();
        assert_eq!(told.len(), 2, "{found:?}");
        assert_eq!(told[0], Some("suite may not depend on left-pad"));
        assert!(found[1].contains("no longer asks for hyper"), "{found:?}");
    }

    #[test]
    fn stubs_belong_behind_a_feature() {
        let mut graph = graph(&[(
            "gosync-proto",
            &[
                ("tonic", "normal"),
                ("prost", "normal"),
                ("tonic-build", "dev"),
            ],
        )]);
        assert_eq!(
            graph.enabled_stubs(),
            ["gosync-proto must take tonic behind a feature only"]
        );
        graph.members.get_mut("gosync-proto").unwrap().dependencies[0].optional = true;
        assert_eq!(graph.enabled_stubs(), [""; 0]);
        let features = &mut graph.members.get_mut("gosync-proto").unwrap().features;
        features.insert("default".to_owned(), vec!["client".to_owned()]);
        assert_eq!(
            graph.enabled_stubs(),
            ["gosync-proto must have no default features"]
        );
    }

    #[test]
    fn deliberate_errors_in_what_is_installed_are_found() {
        let clean = "gosync-server v0.1.0 (/x)\ngosync-proto v0.1.0 (/x/proto) client,server";
        assert_eq!(mutants("gosync-server", clean), None);
        let dirty = "gosync-proto v0.1.0 (/x/proto) client,mutants,server (*)";
        assert!(mutants("gosync-server", dirty).is_some());
    }

    #[test]
    fn an_impure_package_anywhere_below_the_rules_is_found() {
        let tree =
            "gosync-proto v0.1.0 (/somewhere)\nprost v0.14.4\ntokio v1.54.0\nprost v0.14.4 (*)";
        let found = impure(tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("tokio"), "{}", found[0]);
        assert_eq!(
            impure("gosync-proto v0.1.0\ntokio-util-lookalike v1.0.0"),
            [""; 0]
        );
    }
}
