//! The suite's Java programs and Apache RocketMQ, fetched and built by Maven below the target folder.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use super::sources::fingerprint;

/// Attempts at a build that has to fetch from a registry.
const BUILD_TRIES: u32 = 3;

/// The class path that all programs share.
pub(crate) struct Java {
    class_path: OsString,
}

impl Java {
    /// The first tool that is not there.
    pub(crate) fn missing() -> Option<&'static str> {
        ["java", "javac", "mvn"].into_iter().find(|tool| {
            let mut command = Command::new(tool);
            command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            !command.status().is_ok_and(|status| status.success())
        })
    }

    /// Builds if the sources changed since the last time.
    pub(crate) fn build() -> Java {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/twin/java");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("twin-build");
        let libraries = out.join("lib");

        // Maven takes seconds to find that there is nothing to do; the stamp says it at once.
        let stamp = out.join("stamp");
        let wanted = fingerprint(&sources, "");
        if std::fs::read_to_string(&stamp).ok().as_deref() != Some(&wanted) {
            println!("building the Java programs");
            // Otherwise a class or library of an older version could stay in the class path.
            let _ = std::fs::remove_dir_all(&out);
            let built = (0..BUILD_TRIES).any(|_| {
                let mut mvn = Command::new("mvn");
                mvn.args(["--batch-mode", "--quiet", "--file"]).arg(sources.join("pom.xml"));
                mvn.arg(define("twin.build", &out));
                mvn.args(["process-resources", "compile", "dependency:copy-dependencies"]);
                mvn.arg(define("outputDirectory", &libraries)).stdin(Stdio::null());
                mvn.status().is_ok_and(|status| status.success())
            });
            assert!(built, "Maven cannot build {}", sources.display());
            std::fs::write(&stamp, wanted).expect("write the stamp");
        }

        let mut class_path = out.join("classes").into_os_string();
        class_path.push(":");
        class_path.push(libraries.join("*"));
        Java { class_path }
    }

    /// Arguments of `java` for a class; what the program writes goes below `work`.
    pub(crate) fn args(&self, class: &str, work: &Path) -> Vec<OsString> {
        let mut args = vec![define("user.home", work), define("rocketmq.client.logRoot", work)];
        args.extend(
            // Programs that live for a minute: no second compiler, no threads that collect garbage.
            ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(OsString::from),
        );
        // What RocketMQ's start script opens: it unmaps files through private parts of the JDK.
        for package in ["java.nio", "sun.nio.ch", "jdk.internal.ref"] {
            args.push(format!("--add-opens=java.base/{package}=ALL-UNNAMED").into());
        }
        args.extend(["-cp".into(), self.class_path.clone(), class.into()]);
        args
    }
}

fn define(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(format!("-D{name}="));
    option.push(value);
    option
}
