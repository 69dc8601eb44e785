//! Commands against a running node.

use std::process::Output;

use tokio::process::Command;

use crate::common::{Pair, Place, connect_to, soon};

pub async fn longhaul(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.args(arguments).current_dir(place.path("")).env_remove("LONGHAUL_LOG").env_remove("LONGHAUL_ADMIN");
    let Output { status, stdout, stderr } = soon(command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_ping_and_diag_show_the_node() {
    let place = Place::new();
    let pair = Pair::start(&place).await;
    let _client = connect_to(pair.front, b'x').await;
    let (code, out, _) = longhaul(&place, &["status", "-c", "a.toml"]).await;
    assert_eq!(code, 0);
    assert!(out.starts_with("a (") && out.contains("LINK") && out.contains("up") && out.contains("FORWARD"), "{out}");
    let admin = format!("tcp://127.0.0.1:{}", pair.admin_of_a);
    let (_, out, _) = longhaul(&place, &["status", "--json", "--admin", &admin]).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&status["node"]["name"], &status["node"]["key_log"]), (&"a".into(), &false.into()));
    let (code, out, _) = longhaul(&place, &["ping", "b", "--admin", &admin]).await;
    assert!(code == 0 && out.contains("tcp") && out.contains(" ms"), "{out}");
    let (code, _, error) = longhaul(&place, &["ping", "nobody", "--admin", &admin]).await;
    assert!(code == 5 && error.contains("no channel to nobody"), "{error}");
    let (code, _, _) = longhaul(&place, &["diag", "--admin", &admin, "--out", "diag.json"]).await;
    assert_eq!(code, 0);
    let bundle: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("diag.json")).unwrap()).unwrap();
    assert_eq!(
        (&bundle["node"]["status"]["node"]["name"], &bundle["node"]["config"]["link"][0]["required"]),
        (&"a".into(), &true.into())
    );
    assert_eq!(longhaul(&place, &["status", "--admin", "tcp://127.0.0.1:1"]).await.0, 5);
    assert_eq!(longhaul(&place, &["status", "--admin", "nonsense"]).await.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_that_keys_are_logged() {
    let place = Place::new();
    let listen = "[admin]\nlisten = [\"tcp://127.0.0.1:0\"]\n[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
    let mut node = place.start("a", &format!("[log]\nkey_log_file = \"keys\"\n{listen}"));
    let admin = format!("tcp://127.0.0.1:{}", node.port("admin listening").await);
    let (_, out, _) = longhaul(&place, &["status", "--admin", &admin]).await;
    assert!(out.contains("\nKEY LOG IS ON: "), "{out}");
    let (_, out, _) = longhaul(&place, &["status", "--json", "--admin", &admin]).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["node"]["key_log"], true);
}

/// The admin socket as a service: its policy says which nodes may administer this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_administered_by_those_whom_a_service_allows() {
    let place = Place::new();
    let path = |name: &str| format!("unix://{}", place.path(name).display());
    let service = |name: &str, allow: &str| {
        format!("[[service]]\nname = \"{name}\"\ntarget = \"{}\"\nallow = [\"{allow}\"]\n", path("b.sock"))
    };
    let listen = format!("[admin]\nlisten = [\"{}\"]\n[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n", path("b.sock"));
    let sections = format!("{listen}{}{}", service("admin", "node:a"), service("others", "role:operator"));
    let mut b = place.start("b", &sections);
    let port = b.port("listening").await;
    let forward = |name: &str, service: &str| {
        format!("[[forward]]\nlisten = \"{}\"\npeer = \"b\"\nservice = \"{service}\"\n", path(name))
    };
    let link = format!("[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{port}\"]\n");
    let mut a = place.start("a", &format!("{link}{}{}", forward("far", "admin"), forward("closed", "others")));
    a.logged("session connected").await;
    let (code, out, error) = longhaul(&place, &["status", "--admin", &path("far")]).await;
    assert!(code == 0 && out.starts_with("b ("), "{out}{error}");
    let (code, out, _) = longhaul(&place, &["reload", "--admin", &path("far")]).await;
    assert_eq!((code, out.as_str()), (0, "reloaded: nothing has changed\n"));
    let (code, out, _) = longhaul(&place, &["status", "--admin", &path("closed")]).await;
    assert_eq!((code, out.as_str()), (1, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_returns_when_it_is_done() {
    let place = Place::new();
    let pair = Pair::start(&place).await;
    let (code, out, _) = longhaul(&place, &["reload", "-c", "a.toml"]).await;
    assert_eq!((code, out.as_str()), (0, "reloaded: nothing has changed\n"));
    let second = crate::common::free_port().await;
    let forward = format!("[[forward]]\nlisten = \"tcp://127.0.0.1:{second}\"\npeer = \"b\"\nservice = \"one\"\n");
    place.configure("a", &format!("{}{forward}", pair.sections_of_a));
    let (code, out, error) = longhaul(&place, &["reload", "-c", "a.toml"]).await;
    assert_eq!((code, out), (0, format!("forward tcp://127.0.0.1:{second}: added\nreloaded: 1 change\n")), "{error}");
    assert!(crate::common::connect(second).await.is_some(), "the command returns when it is done");
    place.configure("a", &format!("[node]\nmemory_max = \"2GiB\"\n{}", pair.sections_of_a));
    let (code, _, error) = longhaul(&place, &["reload", "-c", "a.toml"]).await;
    assert!(code == 1 && error.contains("cannot be changed while the node runs: [node] memory_max"), "{error}");
    // Over TCP without the token.
    let admin = format!("tcp://127.0.0.1:{}", pair.admin_of_a);
    let (code, _, error) = longhaul(&place, &["reload", "--admin", &admin]).await;
    assert!(code == 4 && error.contains("token"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_and_manual_pages_are_made() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = longhaul(&place, &["completions", shell]).await;
        assert!(code == 0 && out.contains("check-config"), "{shell}");
    }
    let (code, out, _) = longhaul(&place, &["man", "--out", "man"]).await;
    assert!(code == 0 && out.contains("wrote man/longhaul-token-create.1"), "{out}");
    let page = std::fs::read_to_string(place.path("man/longhaul-run.1")).unwrap();
    assert!(page.contains(".TH longhaul\\-run 1") || page.contains("longhaul\\-run"), "{page}");
}
