//! The client programs: which tools they need, how they are built, how they are started.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sources::fingerprint;

/// Attempts at a build that has to fetch from a registry.
const BUILD_TRIES: u32 = 3;

pub(crate) const JAVA5: Toolchain = Toolchain::Java { line: "5", version: "5.5.0" };
pub(crate) const JAVA4: Toolchain = Toolchain::Java { line: "4", version: "4.9.8" };
pub(crate) const GO: Toolchain = Toolchain::Go;
pub(crate) const PYTHON: Toolchain = Toolchain::Python;
pub(crate) const NODE: Toolchain = Toolchain::Node;

/// Where a client comes from. The Java program is one source for both lines of the client; what differs between them
/// is in `java/line4` and `java/line5`.
pub(crate) enum Toolchain {
    Java {
        line: &'static str,
        version: &'static str,
    },
    Go,
    /// The C++ client's library, which a Python package brings.
    Python,
    Node,
}

/// Header encoding of the client's requests.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Codec {
    Json,
    Binary,
}

/// A client program that is built and can be started any number of times.
pub(crate) struct Client {
    pub(crate) description: String,
    program: OsString,
    args: Vec<OsString>,
    java: bool,
    codec: Codec,
    /// Words before the command, for a program that runs somewhere else.
    prefix: Vec<String>,
}

impl Toolchain {
    /// The first tool that is not there, as a sentence.
    pub(crate) fn missing(&self) -> Option<String> {
        let tools: &[(&str, &str)] = match self {
            Toolchain::Java { .. } => &[("java", "-version"), ("javac", "-version"), ("mvn", "-version")],
            Toolchain::Go => &[("go", "version")],
            Toolchain::Python => &[("python3", "--version")],
            Toolchain::Node => &[("node", "--version"), ("npm", "--version")],
        };
        tools
            .iter()
            .find(|(tool, version)| !runs(tool, version))
            .map(|(tool, _)| format!("no `{tool}` in PATH"))
    }

    /// Builds what changed since the last time, below the target folder.
    pub(crate) fn build(&self) -> Client {
        match *self {
            Toolchain::Java { line, version } => build_java(line, version),
            Toolchain::Go => build_go(),
            Toolchain::Python => build_python(),
            Toolchain::Node => build_node(),
        }
    }
}

impl Client {
    pub(crate) fn with_codec(mut self, codec: Codec) -> Client {
        self.codec = codec;
        if codec == Codec::Binary {
            self.description += ", binary headers";
        }
        self
    }

    /// The program started by another, which gets these words first.
    pub(crate) fn behind(mut self, prefix: Vec<String>) -> Client {
        self.prefix = prefix;
        self
    }

    /// The program with its standing arguments; what it writes goes below `work`.
    pub(crate) fn command(&self, work: &Path) -> Command {
        let mut words = self.prefix.iter().map(OsStr::new).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().expect("the program at least"));
        command.args(words);
        if self.java {
            // The client keeps logs and the offsets of broadcasting consumers below the home folder.
            command.arg(define("user.home", work));
            if self.codec == Codec::Binary {
                command.arg("-Drocketmq.serialize.type=ROCKETMQ");
            }
        } else {
            command.env("HOME", work);
        }
        command.args(&self.args);
        command
    }
}

fn build_java(line: &str, version: &str) -> Client {
    let sources = source_folder("java");
    let out = build_folder(&format!("java{line}"));
    let classes = out.join("classes");
    let libraries = out.join("lib");

    // Maven takes seconds to find that there is nothing to do; the stamp says it at once.
    // What is left over must go, or a class of an older version could stay in the class path.
    build_if_changed(&sources, &out, version, || {
        build(|| {
            let mut mvn = Command::new("mvn");
            mvn.args(["--batch-mode", "--quiet", "--file"]).arg(sources.join("pom.xml"));
            mvn.arg(define("interop.build", &out));
            mvn.arg(format!("-Drocketmq.version={version}")).arg(format!("-Drocketmq.line={line}"));
            mvn.args(["compile", "dependency:copy-dependencies"]);
            mvn.arg(define("outputDirectory", &libraries));
            mvn
        });
    });

    let mut class_path = classes.into_os_string();
    class_path.push(":");
    class_path.push(libraries.join("*"));
    let args = ["-Xmx768m", "-XX:+UseSerialGC", "-cp"].map(OsString::from);
    let args = args.into_iter().chain([class_path, OsString::from("apogee.interop.Main")]).collect();
    let description = format!("Java client {version}");
    Client { description, program: "java".into(), args, java: true, codec: Codec::Json, prefix: Vec::new() }
}

fn build_go() -> Client {
    let sources = source_folder("go");
    let program = build_folder("go").join("interop");
    // Go's own build cache makes this incremental.
    build(|| {
        let mut go = Command::new("go");
        go.current_dir(&sources).args(["build", "-o"]).arg(&program).arg(".");
        go
    });
    let module = std::fs::read_to_string(sources.join("go.mod")).expect("read go.mod");
    let version = module
        .split_whitespace()
        .skip_while(|word| *word != "github.com/apache/rocketmq-client-go/v2")
        .nth(1)
        .expect("the client's version in go.mod");
    let description = format!("Go client {version}");
    Client {
        description,
        program: program.into_os_string(),
        args: Vec::new(),
        java: false,
        codec: Codec::Json,
        prefix: Vec::new(),
    }
}

/// A virtual environment with the package that `requirements.txt` names.
fn build_python() -> Client {
    let sources = source_folder("python");
    let out = build_folder("python");
    build_if_changed(&sources, &out, "", || {
        build(|| {
            let mut venv = Command::new("python3");
            venv.args(["-m", "venv"]).arg(&out);
            venv
        });
        build(|| {
            let mut pip = Command::new(out.join("bin/pip"));
            pip.args(["--quiet", "--disable-pip-version-check", "install", "--requirement"]);
            pip.arg(sources.join("requirements.txt"));
            pip
        });
    });
    let package = std::fs::read_to_string(sources.join("requirements.txt")).expect("read requirements.txt");
    Client {
        description: format!("C++ client by way of Python, {}", package.trim()),
        program: out.join("bin/python").into_os_string(),
        args: vec![sources.join("main.py").into_os_string()],
        java: false,
        codec: Codec::Json,
        prefix: Vec::new(),
    }
}

/// The program beside its packages, for that is where Node looks for them.
fn build_node() -> Client {
    let sources = source_folder("node");
    let out = build_folder("node");
    build_if_changed(&sources, &out, "", || {
        std::fs::create_dir_all(&out).expect("make the build folder");
        for file in ["package.json", "main.js"] {
            std::fs::copy(sources.join(file), out.join(file)).expect("copy a source file");
        }
        build(|| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&out);
            npm
        });
    });
    Client {
        description: "Node client ali-ons".to_owned(),
        program: "node".into(),
        args: vec![out.join("main.js").into_os_string()],
        java: false,
        codec: Codec::Json,
        prefix: Vec::new(),
    }
}

/// Builds anew, from nothing, if a file of the sources is another than the last time.
fn build_if_changed(sources: &Path, out: &Path, version: &str, build: impl FnOnce()) {
    let stamp = out.join("stamp");
    let wanted = fingerprint(sources, version);
    if std::fs::read_to_string(&stamp).ok().as_deref() == Some(&wanted) {
        return;
    }
    println!("building {}", out.display());
    let _ = std::fs::remove_dir_all(out);
    build();
    std::fs::write(&stamp, wanted).expect("write the stamp");
}

fn build(command: impl Fn() -> Command) {
    let last = (1..=BUILD_TRIES).find_map(|n| match command().stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Some(()),
        other => {
            println!("build failed, try {n} of {BUILD_TRIES}: {other:?}");
            None
        }
    });
    assert!(last.is_some(), "cannot build: {:?}", command());
}

fn runs(tool: &str, version: &str) -> bool {
    let mut command = Command::new(tool);
    command.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn define(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(format!("-D{name}="));
    option.push(value);
    option
}

fn source_folder(client: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(client)
}

fn build_folder(client: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-build").join(client)
}
