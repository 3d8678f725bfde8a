//! Starting where it cannot, and stopping.

use std::time::Duration;

use taffrail_server::Config;

use crate::harness::{Server, prompt};

#[test]
fn a_second_server_on_the_same_directory_is_told_who_was_first() {
    let server = Server::start();
    let message = Server::try_start(Config::for_dir(server.dir())).err().unwrap();
    assert!(
        message.contains(&format!("pid {}", std::process::id())) && message.contains("hint:"),
        "{message}"
    );
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let server = Server::start();
    let own = tempfile::tempdir().unwrap();
    let mut config = Config::for_dir(own.path());
    config.listen = server.addr;
    let message = Server::try_start(config).err().unwrap();
    assert!(message.contains("is in use") && message.contains("--listen"), "{message}");
    if cfg!(target_os = "linux") {
        assert!(message.contains(&std::process::id().to_string()), "{message}");
    }
}

#[test]
fn a_file_that_is_no_database_is_left_as_it_is() {
    let own = tempfile::tempdir().unwrap();
    let path = own.path().join("taffrail.db");
    let bytes = b"this is certainly not a database, and it is longer than a header of one hundred bytes, so that nobody takes it for an empty one".to_vec();
    std::fs::write(&path, &bytes).unwrap();
    let message = Server::try_start(Config::for_dir(own.path())).err().unwrap();
    assert!(message.contains("damaged") && message.contains("hint:"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_directory_that_cannot_be_made_says_what_to_do() {
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let message = Server::try_start(Config::for_dir(&file.join("data"))).err().unwrap();
    assert!(message.contains("--data-dir"), "{message}");
}

#[test]
fn server_json_tells_where_it_answers_and_goes_with_it() {
    let own = tempfile::tempdir().unwrap();
    let server = Server::start_in(own.path());
    let path = own.path().join("server.json");
    let notice: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(notice["listen"], server.addr.to_string());
    assert_eq!(notice["pid"], std::process::id());
    assert_eq!(notice["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server.hook(prompt("s", "x")).status, 200);
    server.stop();
    assert!(!path.exists());
    let server = Server::start_in(own.path());
    assert_eq!(server.stored(), 1);
}

#[test]
fn a_stop_with_idle_connections_does_not_wait_for_them() {
    let server = Server::start();
    let _idle = std::net::TcpStream::connect(server.addr).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = std::time::Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
