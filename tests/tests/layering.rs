//! The shape of the source: dependencies run one way, files stay small, unsafe code stays where it is declared, every
//! backend has the same files, and every dependency has its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, tests included.
const LONGEST: usize = 600;
/// Longest `mod.rs`: documentation, declarations and a little glue.
const LONGEST_MOD: usize = 200;

/// Modules of the engine and the modules that each may name. Tests may name what they like.
const ENGINE: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("wire", &[]),
    ("topology", &["sync"]),
    ("prefetch", &[]),
    ("burst", &["prefetch", "wire"]),
    ("mem", &["burst", "prefetch", "sync", "wire"]),
    ("vhost", &["mem", "virtq"]),
    ("uring", &["burst", "mem", "sync", "wire"]),
    ("port", &["burst", "mem", "sync", "topology", "uring", "wire"]),
    ("offload", &["burst", "mem", "port", "wire"]),
    ("virtq", &["burst", "mem", "prefetch", "sync"]),
    ("backend", &["burst", "mem", "port", "prefetch", "sync", "topology", "uring", "vhost", "virtq", "wire"]),
    ("colo", &["wire"]),
    ("filter", &["burst", "mem", "port", "sync", "topology", "uring", "wire"]),
    ("switch", &["burst", "mem", "port", "prefetch", "sync", "topology", "wire"]),
];

/// Modules of the engine at the top, which may name everything below.
const ENGINE_TOP: &[&str] = &["lib", "worker", "engine"];

/// Files that may contain unsafe code, beside tests.
const UNSAFE: &[&str] = &[
    // Memory, rings and raw system calls.
    "engine/af_xdp/src/",
    "engine/src/mem/",
    "engine/src/uring/",
    "engine/src/virtq/",
    "engine/src/backend/child.rs",
    "engine/src/vhost/kernel/ioctl.rs",
    "engine/src/backend/copy.rs",
    "engine/src/backend/af_xdp/",
    "engine/src/backend/datagram/",
    "engine/src/backend/netmap/",
    "engine/src/backend/nic/",
    "engine/src/backend/stream/buffer.rs",
    "engine/src/backend/stream/message.rs",
    "engine/src/backend/resolve.rs",
    "engine/src/backend/tap/",
    "engine/src/backend/user/process.rs",
    "engine/src/backend/driver/",
    "engine/src/backend/vhost_vdpa/commands.rs",
    // A frame's segments are pointers into memory that is lent; heads are such memory, checksums read it.
    "engine/src/burst.rs",
    // libpcap compiles filter expressions; its functions are found by name.
    "engine/src/filter/bpf/compile.rs",
    "engine/src/offload/heads.rs",
    "engine/src/wire/checksum.rs",
    // The time stamp counter, and prefetch instructions.
    "engine/src/worker/clock.rs",
    "engine/src/prefetch.rs",
    // libslirp, messages of many frames a call, and the rights that its process gives up.
    "usernet/src/ffi.rs",
    "usernet/src/stack.rs",
    "usernet/src/message.rs",
    "usernet/src/sandbox.rs",
    // What libslirp asks of the C library.
    "usernet/src/resolver.rs",
    // The number of a file becomes an owned file.
    "usernet/src/fds.rs",
    "control/src/fds.rs",
    // The bridge helper's ioctls on interfaces, and the rights that it gives up.
    "control/src/bridge_helper/kernel.rs",
    // Packet sockets, taps and guests of the black-box tests; the load tools.
    "tests/src/packet.rs",
    "tests/src/guest.rs",
    "bench/",
];

/// Whether a whole file is test code.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("/testing.rs") || path.contains("/tests/")
}

/// A file's text up to the tests at its end.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").into()
}

/// Every `.rs` file below `directory`, as its path from the root of the workspace, with its text.
fn sources(directory: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.insert(name, fs::read_to_string(&path).expect("a readable source"));
            }
        }
    }
    found
}

fn all_sources() -> BTreeMap<String, String> {
    ["engine", "usernet", "control", "bench", "tests"].into_iter().flat_map(sources).collect()
}

/// The text without line comments, doc comments among them.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first module after each `crate::` (and in each `use crate::{a, b::c}`).
fn modules_named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let identifier =
            |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (at, letter) in list.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    _ if letter.is_whitespace() => {}
                    _ if start => {
                        names.insert(identifier(&list[at..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            names.insert(identifier(rest));
        }
    }
    names
}

#[test]
fn the_engine_depends_downwards_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources("engine/src") {
        let inner = path.strip_prefix("engine/src/").expect("in the engine");
        let module = inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs");
        if ENGINE_TOP.contains(&module) || is_test(&path) {
            continue;
        }
        let Some((_, allowed)) = ENGINE.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{path}: module {module} has no place in the layers"));
            continue;
        };
        let known = |name: &str| ENGINE.iter().any(|(known, _)| *known == name) || ENGINE_TOP.contains(&name);
        for name in modules_named(&code(without_tests(&text))) {
            if name != module && known(&name) && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{path}: {module} may not name {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn topology_knows_nothing_but_std() {
    let foreign = ["crossbeam", "nix", "libc", "io_uring", "hugepage_rs", "core_affinity"];
    for (path, text) in sources("engine/src/topology") {
        let code = code(&text);
        for name in foreign {
            assert!(!code.contains(&format!("{name}::")), "{path} names {name}");
        }
    }
}

#[test]
fn the_crates_depend_one_way() {
    let dependencies = |manifest: &str| -> String {
        let text = fs::read_to_string(root().join(manifest)).expect("a manifest");
        text.split("[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap_or_default().into()
    };
    let names = |text: &str, name: &str| text.lines().any(|line| line.starts_with(name));
    let engine = dependencies("engine/Cargo.toml");
    for above in ["control", "bench", "tests", "serde", "tokio", "tracing", "log", "clap"] {
        assert!(!names(&engine, above), "the engine may not depend on {above}");
    }
    let control = dependencies("control/Cargo.toml");
    assert!(names(&control, "engine"), "control decides for the engine");
    for above in ["bench", "tests", "tokio", "async"] {
        assert!(!names(&control, above), "control may not depend on {above}");
    }
}

#[test]
fn files_stay_small() {
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{path}: {lines} lines, at most {LONGEST}"));
        }
        if path.ends_with("/mod.rs") && lines > LONGEST_MOD {
            wrong.push(format!("{path}: {lines} lines, a mod.rs has at most {LONGEST_MOD}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stays_in_its_list_and_says_why() {
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let inner = without_tests(&text).lines().count();
        let mut reason = 0;
        for (number, line) in text.lines().enumerate() {
            if line.contains("SAFETY:") || line.contains("# Safety") {
                reason = number + 1;
            }
            let code = line.split("//").next().unwrap_or_default();
            let block = ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"]
                .iter()
                .any(|form| code.contains(form));
            if !block || code.contains("\"unsafe") {
                continue;
            }
            let test = is_test(&path) || number >= inner;
            if !test && !UNSAFE.iter().any(|allowed| path.starts_with(allowed)) {
                wrong.push(format!("{path}:{}: unsafe code outside its list", number + 1));
            } else if reason == 0 || number + 1 - reason > 15 {
                wrong.push(format!("{path}:{}: unsafe without SAFETY close above", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_backend_has_the_same_files() {
    for entry in fs::read_dir(root().join("engine/src/backend")).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            // Where frames are datagrams, the queues are those of `datagram`, where they lie in virtio rings those of `driver`; a tunnel has a
            // header of its own.
            let open = fs::read_to_string(entry.path().join("open.rs")).unwrap_or_default();
            let files: &[&str] = if entry.path().join("header.rs").is_file() {
                &["options.rs", "open.rs", "header.rs"]
            } else if open.contains("use crate::backend::datagram::")
                || open.contains("use crate::backend::driver::")
            {
                &["options.rs", "open.rs"]
            } else {
                &["options.rs", "open.rs", "rx.rs", "tx.rs"]
            };
            for file in files {
                assert!(entry.path().join(file).is_file(), "{} has no {file}", entry.path().display());
            }
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace's manifest");
    let document = fs::read_to_string(root().join("docs/dependencies.md")).expect("docs/dependencies.md");
    let list = manifest.split("[workspace.dependencies]").nth(1).and_then(|rest| rest.split("\n[").next());
    for line in list.expect("a list of dependencies").lines() {
        let Some((name, _)) = line.split_once('=') else { continue };
        let name = name.trim();
        let own = ["engine", "control", "usernet", "bench", "tests"].contains(&name);
        assert!(
            own || document.contains(&format!("`{name}`")),
            "docs/dependencies.md does not name `{name}`"
        );
    }
}

#[test]
fn no_machine_path_is_in_the_project() {
    let places = [concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/ho", "me/")];
    for (path, text) in all_sources() {
        for place in places {
            assert!(!text.contains(place), "{path} names {place}");
        }
    }
}
