//! With debug off, `#[delouse::main]` equals `#[tokio::main]`: no additional crate and no additional code, whatever features
//! and names the user's crate has.
//!
//! The programs here are built outside of the workspace, as a user would, each in a directory of its own. They share
//! one target directory, so that tokio is built once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use object::{Object, ObjectSection};
use tempfile::TempDir;

const MAIN: &str = r#"
use std::time::Duration;

#[ATTRIBUTE]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let heartbeat = tokio::spawn(async move {
        for beat in 0..3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if sender.send(beat).await.is_err() {
                break;
            }
        }
    });
    while let Some(beat) = receiver.recv().await {
        println!("beat {beat}");
    }
    heartbeat.await?;
    Ok(())
}
"#;

/// A package outside of the workspace.
struct Package {
    directory: TempDir,
    name: &'static str,
}

impl Package {
    /// `manifest` is what follows the package's name and edition; `DELOUSE` in it is replaced by the crate's path.
    fn new(name: &'static str, manifest: &str) -> Self {
        let package = Package { directory: tempfile::tempdir().unwrap(), name };
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let delouse = format!("path = '{}'", workspace.join("delouse").display());
        let manifest = manifest.replace("DELOUSE", &delouse);
        package.write(
            "Cargo.toml",
            &format!(
                "[package]\nname = '{name}'\nversion = '0.0.0'\nedition = '2024'\n[workspace]\n{manifest}"
            ),
        );
        // The versions that the workspace has, and no network.
        fs::copy(workspace.join("Cargo.lock"), package.path("Cargo.lock")).unwrap();
        package
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn cargo(&self, arguments: &[&str]) -> Output {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(&self.directory).args(arguments).arg("--offline");
        cargo.env("CARGO_TARGET_DIR", target());
        // Not how these tests were built, but how a user builds.
        for variable in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_INCREMENTAL",
        ] {
            cargo.env_remove(variable);
        }
        cargo.output().unwrap()
    }

    fn cargo_succeeds(&self, arguments: &[&str]) -> String {
        let output = self.cargo(arguments);
        assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Builds the program and takes it out of the shared directory.
    fn build(&self, copy: &str) -> PathBuf {
        let output = self.cargo(&["build", "--release"]);
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{messages}");
        assert!(
            messages.contains(&format!("Compiling {}", self.name)),
            "an earlier build was taken: {messages}"
        );
        let copy = self.path(copy);
        fs::copy(target().join("release").join(self.name), &copy).unwrap();
        copy
    }

    /// The crates that a normal build has, without the package itself, each as `name version`.
    fn dependencies(&self) -> BTreeSet<String> {
        self.cargo_succeeds(&["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
            .lines()
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
            .filter(|krate| !krate.starts_with(self.name))
            .collect()
    }

    /// The features of tokio.
    fn tokio_features(&self) -> BTreeSet<String> {
        let tree =
            self.cargo_succeeds(&["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}:{f}"]);
        let tokio = tree.lines().find(|line| line.starts_with("tokio ")).unwrap();
        let (_, features) = tokio.trim_end_matches(" (*)").split_once(':').unwrap();
        features.split(',').map(str::to_owned).collect()
    }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("debug-off")
}

fn main_under(attribute: &str) -> String {
    MAIN.replace("ATTRIBUTE", attribute)
}

fn stdout(program: &Path) -> String {
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn no_further_crate() {
    let delouse = Package::new(
        "tree-under-delouse",
        "[dependencies]\ndelouse = { DELOUSE }\ntokio = { version = '1', features = ['rt-multi-thread'] }",
    );
    delouse.write("src/main.rs", "");
    let tokio = Package::new(
        "tree-under-tokio",
        "[dependencies]\ntokio = { version = '1', features = ['macros', 'rt-multi-thread'] }",
    );
    tokio.write("src/main.rs", "");

    let with_delouse = delouse.dependencies();
    let with_tokio = tokio.dependencies();
    let names = |of: &BTreeSet<String>, without: &BTreeSet<String>| -> Vec<String> {
        of.difference(without).map(|krate| krate.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&with_delouse, &with_tokio), ["delouse", "delouse-macros"]);
    assert_eq!(names(&with_tokio, &with_delouse), ["tokio-macros"]);

    let more: Vec<_> = delouse.tokio_features().difference(&tokio.tokio_features()).cloned().collect();
    assert!(more.is_empty(), "delouse turns on more of tokio: {more:?}");
}

/// `engine` reads core files without a runtime, and `dump` prints tasks without a server.
#[test]
fn smaller_features_need_no_server() {
    for (feature, needless) in
        [("engine", &["tokio", "dropshot", "http"][..]), ("dump", &["dropshot", "http"])]
    {
        let package = Package::new(
            "tree-of-feature",
            &format!(
                "[dependencies]\ndelouse = {{ DELOUSE, default-features = false, features = ['{feature}'] }}"
            ),
        );
        package.write("src/lib.rs", "");
        let dependencies = package.dependencies();
        let has = |name: &str| dependencies.iter().any(|krate| krate.split(' ').next() == Some(name));
        assert!(has("gimli"), "{dependencies:?}");
        assert!(!needless.iter().any(|name| has(name)), "{feature}: {dependencies:?}");
    }
}

#[test]
fn no_further_code() {
    // One package with two sources in turn, so that hashes in names and the like do not differ by chance.
    let package = Package::new(
        "text-under-both",
        "[dependencies]\ndelouse = { DELOUSE }\n\
         tokio = { version = '1', features = ['macros', 'rt-multi-thread', 'sync', 'time'] }",
    );
    package.write("src/main.rs", &main_under("delouse::main"));
    let delouse = package.build("under-delouse");
    package.write("src/main.rs", &main_under("tokio::main"));
    let tokio = package.build("under-tokio");

    assert_eq!(stdout(&delouse), "beat 0\nbeat 1\nbeat 2\n");
    assert_eq!(stdout(&delouse), stdout(&tokio));
    let (delouse, tokio) = (text(&delouse), text(&tokio));
    assert_eq!(delouse.len(), tokio.len());
    assert!(delouse.len() > 100_000, "{} bytes are no program with a runtime in it", delouse.len());
    assert!(delouse == tokio, "as long, but not the same code");
}

fn text(program: &Path) -> Vec<u8> {
    let file = fs::read(program).unwrap();
    let object = object::File::parse(&*file).unwrap();
    object.section_by_name(".text").unwrap().data().unwrap().to_vec()
}

/// `init`, `Config`, `register` and `dump` exist, accept the same arguments as with debug on, and do nothing, whatever the
/// environment variables are.
#[test]
fn the_api_without_effect() {
    let package = Package::new(
        "face-without-effect",
        "[dependencies]\ndelouse = { DELOUSE }\n\
         tokio = { version = '1', features = ['macros', 'rt-multi-thread', 'sync', 'time'] }",
    );
    package.write(
        "src/main.rs",
        r#"
fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    delouse::register(runtime.handle());
    let config = delouse::Config::new().bind("nonsense").token("with blanks").sigquit(true).runtime(runtime.handle());
    assert_eq!(std::mem::size_of_val(&config), 0);
    assert_eq!(config.clone().init(), delouse::Started::Off);
    assert_eq!(runtime.block_on(async { delouse::init() }), delouse::Started::Off);
    assert_eq!(delouse::dump(), Ok(()));
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    println!("{config:?}, {threads} thread");
}
"#,
    );
    let program = package.build("program");
    let output = Command::new(program).env("DELOUSE_BIND", "nonsense").output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Config, 1 thread\n");
}

#[test]
fn a_feature_named_debug_of_the_users_own() {
    let package = Package::new(
        "own-debug-feature",
        "[features]\ndefault = ['debug']\ndebug = []\n[dependencies]\ndelouse = { DELOUSE }\n\
         tokio = { version = '1', features = ['macros', 'rt-multi-thread', 'sync', 'time'] }",
    );
    let check = "#[cfg(not(feature = \"debug\"))]\ncompile_error!(\"the feature is off\");\n";
    package.write("src/main.rs", &(check.to_owned() + &main_under("delouse::main")));
    assert_eq!(stdout(&package.build("program")), "beat 0\nbeat 1\nbeat 2\n");
    assert!(!package.dependencies().iter().any(|krate| krate.starts_with("dropshot ")));
}

/// Neither crate has its own name, so that an expansion that relies on these names does not compile.
#[test]
fn renamed_in_the_manifest() {
    let package = Package::new(
        "renamed-in-manifest",
        "[dependencies]\nbugs = { package = 'delouse', DELOUSE }\n\
         tokio_one = { package = 'tokio', version = '1', \
         features = ['macros', 'rt-multi-thread', 'sync', 'time'] }",
    );
    let attribute = r#"bugs::main(delouse = "bugs", crate = "tokio_one")"#;
    package.write("src/main.rs", &main_under(attribute).replace("tokio::", "tokio_one::"));
    assert_eq!(stdout(&package.build("program")), "beat 0\nbeat 1\nbeat 2\n");
}

/// A program that needs no worker threads gets none. Without tokio's feature for them, a program that needs them does not
/// compile, and the error names the missing function.
#[test]
fn without_rt_multi_thread() {
    let package = Package::new(
        "without-rt-multi-thread",
        "[dependencies]\ndelouse = { DELOUSE }\ntokio = { version = '1', features = ['rt'] }",
    );
    package.write("src/bin/enough.rs", "#[delouse::main(flavor = \"current_thread\")]\nasync fn main() {}");
    package.write("src/bin/missing.rs", "#[delouse::main]\nasync fn main() {}");
    package.cargo_succeeds(&["check", "--bin", "enough"]);
    let output = package.cargo(&["check", "--bin", "missing"]);
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("`new_multi_thread` found"), "{errors}");
}
