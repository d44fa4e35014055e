//! TLS against clients that others wrote: the `fluvio` crate's own, rustls with frames by hand, and openssl.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Raw, SOON, ask};
use fluvio::config::{TlsPaths, TlsPolicy};
use fluvio::consumer::ConsumerConfigExt;
use fluvio::metadata::topic::TopicSpec;
use fluvio::{Fluvio, FluvioClusterConfig, Offset, RecordKey};
use fluvio_devserver::certificates::{self, CertificateFiles, Certificates};
use fluvio_devserver::{Config, Server, Tls};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::ApiVersionsRequest;
use futures_util::StreamExt;
use rcgen::{
    CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const DOMAIN: &str = "fluvio.local";

/// Certificates in a folder that goes with them.
fn make_certificates() -> (TempDir, Certificates) {
    let folder = tempfile::tempdir().expect("a folder");
    let made = certificates::create(folder.path(), DOMAIN, 2).expect("certificates");
    (folder, made)
}

async fn start(made: &Certificates, client_ca: Option<&Path>) -> Server {
    let tls = Tls::load(&made.server.certificate, &made.server.key, client_ca).expect("load");
    Server::start(Config { tls: Some(tls), spus: 2, ..Config::default() }).await.expect("start")
}

/// What the crate's client is told to verify, and to show.
fn verified(authority: &Path, client: &CertificateFiles) -> TlsPolicy {
    TlsPolicy::from(TlsPaths {
        domain: DOMAIN.to_owned(),
        key: client.key.clone(),
        cert: client.certificate.clone(),
        ca_cert: authority.to_owned(),
    })
}

async fn connect_crate(server: &Server, tls: TlsPolicy) -> anyhow::Result<Fluvio> {
    let config = FluvioClusterConfig::new(server.endpoint()).with_tls(tls);
    timeout(SOON, Fluvio::connect_with_config(&config)).await?
}

/// A TLS client that verifies `name`, over a socket whose buffers hold little.
async fn connect_rustls(
    address: &str,
    name: &str,
    made: &Certificates,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&made.authority.certificate).expect("read")).expect("a root");
    let client = CertificateDer::from_pem_file(&made.client.certificate).expect("read");
    let key = PrivateKeyDer::from_pem_file(&made.client.key).expect("read");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client], key)
        .expect("a certificate");
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(8 * 1024)?;
    let socket = socket.connect(address.parse().expect("an address")).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// Runs openssl until it ends, with an end of its input; returns whether it was content, and what it printed.
async fn openssl(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(SOON, command.output()).await.expect("in time").expect("openssl runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

/// Has openssl connect and read until the server or it gives up.
async fn s_client(server: &Server, arguments: &[&str]) -> (bool, String) {
    let endpoint = server.endpoint();
    let fixed = ["s_client", "-connect", &endpoint, "-servername", DOMAIN, "-verify_return_error"];
    openssl(&[&fixed[..], arguments].concat()).await
}

fn versions() -> ApiVersionsRequest {
    ApiVersionsRequest { client_version: "0.50.1".to_owned(), ..ApiVersionsRequest::default() }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fluvio_crate_works_over_tls_that_it_verifies() {
    let (_folder, made) = make_certificates();
    let server = start(&made, Some(&made.authority.certificate)).await;
    let policy = verified(&made.authority.certificate, &made.client);
    let client = connect_crate(&server, policy).await.expect("connect");
    let admin = client.admin().await;
    // Two partitions on two SPUs: each is verified under a name of its own.
    admin.create("secret".to_owned(), false, TopicSpec::new_computed(2, 1, None)).await.expect("create");
    let producer = client.topic_producer("secret").await.expect("producer");
    let value = vec![b'x'; 1000];
    for _ in 0..4000 {
        producer.send(RecordKey::NULL, value.as_slice()).await.expect("send");
    }
    producer.flush().await.expect("flush");
    let mut received = 0;
    for partition in [0, 1] {
        let config = ConsumerConfigExt::builder()
            .topic("secret")
            .partition(partition)
            .offset_start(Offset::beginning())
            .disable_continuous(true)
            .build()
            .expect("configuration");
        let mut records = client.consumer_with_config(config).await.expect("consumer");
        let mut next_offset = 0;
        while let Some(record) = timeout(SOON, records.next()).await.expect("in time") {
            let record = record.expect("record");
            assert_eq!((record.partition, record.offset), (partition, next_offset));
            assert_eq!(record.value(), value);
            next_offset += 1;
        }
        assert!(next_offset > 0, "both SPUs have records");
        received += next_offset;
    }
    assert_eq!(received, 4000);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fluvio_crate_is_refused_with_a_wrong_certificate_and_refuses_a_wrong_authority() {
    let (_folder, made) = make_certificates();
    let (_other, others) = make_certificates();
    let server = start(&made, Some(&made.authority.certificate)).await;
    let authority = &made.authority.certificate;
    for (policy, what) in [
        (verified(authority, &made.untrusted_client), "a certificate of another authority"),
        (verified(&others.authority.certificate, &made.client), "another authority than the server's"),
        (TlsPolicy::Disabled, "no TLS at all"),
    ] {
        connect_crate(&server, policy).await.err().expect(what);
    }
    connect_crate(&server, verified(authority, &made.client)).await.expect("others do not notice");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_needs_no_certificate_unless_an_authority_is_given() {
    let (_folder, made) = make_certificates();
    let ca = text(&made.authority.certificate);
    let (cert, key) = (text(&made.client.certificate), text(&made.client.key));
    let open = start(&made, None).await;
    let closed = start(&made, Some(&made.authority.certificate)).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let (content, said) = s_client(&open, &[version, "-CAfile", ca]).await;
        assert!(content, "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        let (content, said) = s_client(&closed, &[version, "-CAfile", ca, "-cert", cert, "-key", key]).await;
        assert!(content, "{said}");
    }
    // Over TLS 1.3 the client has finished its handshake before the server refuses it: it hears of it when it reads.
    let (content, said) = s_client(&closed, &["-tls1_2", "-CAfile", ca]).await;
    assert!(!content, "{said}");
    assert!(said.contains("alert"), "{said}");
    // Its anonymous policy is broken in the crate itself, which takes host and port for a name.
    let error = connect_crate(&open, TlsPolicy::Anonymous).await.err().expect("no name");
    assert!(format!("{error:#}").contains("Invalid Dns Name"), "{error:#}");
    open.shutdown().await;
    closed.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_has_the_names_that_clients_ask_for() {
    let (_folder, made) = make_certificates();
    let server = start(&made, Some(&made.authority.certificate)).await;
    for name in [DOMAIN, "custom-spu-5001.fluvio.local", "localhost", "127.0.0.1", "::1"] {
        connect_rustls(&server.endpoint(), name, &made).await.expect(name);
    }
    for name in ["example.com", "a.b.fluvio.local", "127.0.0.2"] {
        let error = connect_rustls(&server.endpoint(), name, &made).await.expect_err(name);
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
    let ca = text(&made.authority.certificate);
    let (content, said) = s_client(&server, &["-tls1_2", "-CAfile", text(&made.client.certificate)]).await;
    assert!(!content, "{said}");
    assert!(said.contains("unable to get local issuer certificate"), "{said}");
    let (content, said) = openssl(&["verify", "-CAfile", ca, text(&made.untrusted_client.certificate)]).await;
    assert!(!content, "{said}");
    server.shutdown().await;
}

/// A certificate of `made`'s authority that has expired long ago.
fn expired(folder: &Path, made: &Certificates, usage: ExtendedKeyUsagePurpose) -> CertificateFiles {
    let key = KeyPair::from_pem(&fs::read_to_string(&made.authority.key).expect("read")).expect("a key");
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "fluvio-devserver test CA");
    let issuer = Issuer::new(authority, key);
    let mut parameters = CertificateParams::new([DOMAIN.to_owned()]).expect("a name");
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2021, 1, 1);
    parameters.extended_key_usages = vec![usage];
    let key = KeyPair::generate().expect("a key");
    let mut files = made.server.clone();
    files.certificate = folder.join("expired.crt");
    files.key = folder.join("expired.key");
    fs::write(&files.certificate, parameters.signed_by(&key, &issuer).expect("sign").pem()).expect("write");
    fs::write(&files.key, key.serialize_pem()).expect("write");
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_certificates_are_refused_on_both_sides() {
    let (folder, made) = make_certificates();
    let authority = &made.authority.certificate;

    let client = expired(folder.path(), &made, ExtendedKeyUsagePurpose::ClientAuth);
    let server = start(&made, Some(authority)).await;
    connect_crate(&server, verified(authority, &client)).await.err().expect("an expired client");
    server.shutdown().await;

    let files = expired(folder.path(), &made, ExtendedKeyUsagePurpose::ServerAuth);
    let tls = Tls::load(&files.certificate, &files.key, None).expect("load");
    let server = Server::start(Config { tls: Some(tls), ..Config::default() }).await.expect("start");
    connect_crate(&server, verified(authority, &made.client)).await.err().expect("an expired server");
    let (content, said) = s_client(&server, &["-CAfile", text(authority)]).await;
    assert!(!content, "{said}");
    assert!(said.contains("certificate has expired"), "{said}");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_all_three_formats_are_read() {
    let (folder, made) = make_certificates();
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();

    // SEC1, from the PKCS#8 key that `certs` made.
    let (content, said) = openssl(&["ec", "-in", text(&made.server.key), "-out", &path("sec1.key")]).await;
    assert!(content, "{said}");
    assert!(fs::read_to_string(path("sec1.key")).expect("read").contains("BEGIN EC PRIVATE KEY"));
    let tls = Tls::load(&made.server.certificate, path("sec1.key").as_ref(), None).expect("SEC1");
    let server = Server::start(Config { tls: Some(tls), ..Config::default() }).await.expect("start");
    connect_rustls(&server.endpoint(), DOMAIN, &made).await.expect("connect");
    server.shutdown().await;

    // PKCS#1: RSA, with a certificate that signs itself.
    let subject = ["-subj", "/CN=fluvio.local", "-addext", "subjectAltName=DNS:fluvio.local"];
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &path("rsa.key")];
    let (content, said) = openssl(&[&request[..], &["-out", &path("rsa.crt")], &subject].concat()).await;
    assert!(content, "{said}");
    let traditional = ["rsa", "-in", &path("rsa.key"), "-traditional", "-out", &path("pkcs1.key")];
    let (content, said) = openssl(&traditional).await;
    assert!(content, "{said}");
    assert!(fs::read_to_string(path("pkcs1.key")).expect("read").contains("BEGIN RSA PRIVATE KEY"));
    let tls = Tls::load(path("rsa.crt").as_ref(), path("pkcs1.key").as_ref(), None).expect("PKCS#1");
    let server = Server::start(Config { tls: Some(tls), ..Config::default() }).await.expect("start");
    let (content, said) = s_client(&server, &["-CAfile", &path("rsa.crt")]).await;
    assert!(content, "{said}");
    server.shutdown().await;
}

#[test]
fn says_which_file_is_wrong_and_how() {
    let (folder, made) = make_certificates();
    let (_other, others) = make_certificates();
    let nowhere = folder.path().join("nowhere");
    let garbage = folder.path().join("garbage");
    fs::write(&garbage, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").expect("write");
    let locked = folder.path().join("locked");
    let pem = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(&locked, pem).expect("write");
    let (cert, key) = (made.server.certificate.as_path(), made.server.key.as_path());
    for (cert, key, client_ca, wrong, what) in [
        (nowhere.as_path(), key, None, &nowhere, "No such file"),
        (cert, nowhere.as_path(), None, &nowhere, "No such file"),
        (cert, key, Some(nowhere.as_path()), &nowhere, "No such file"),
        (folder.path(), key, None, &folder.path().to_owned(), "Is a directory"),
        (key, key, None, &made.server.key, "holds no certificate"),
        (cert, cert, None, &made.server.certificate, "holds no private key"),
        (cert, key, Some(key), &made.server.key, "holds no certificate"),
        (garbage.as_path(), key, None, &garbage, "no valid PEM"),
        (cert, locked.as_path(), None, &locked, "encrypted"),
        (cert, others.server.key.as_path(), None, &others.server.key, "is not that of the certificate"),
    ] {
        let error = Tls::load(cert, key, client_ca).expect_err(what);
        let error = format!("{error:#}");
        assert!(error.contains(what) && error.contains(text(wrong)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_the_other_protocol_loses_only_its_own_connection() {
    let (_folder, made) = make_certificates();
    let server = start(&made, None).await;
    let mut good = Raw::over(connect_rustls(&server.endpoint(), DOMAIN, &made).await.expect("connect"));
    let mut plain = TcpStream::connect(server.endpoint()).await.expect("connect");
    plain.write_all(&crate::common::frame_of(versions())).await.expect("send");
    let mut received = Vec::new();
    // An alert perhaps, and then the end.
    let ended = timeout(SOON, plain.read_to_end(&mut received)).await.expect("in time");
    assert!(ended.is_err() || received.first().is_none_or(|first| *first == 0x15), "{received:?}");
    assert_eq!(ask(&mut good, versions()).await.error_code, ErrorCode::None);
    server.shutdown().await;

    let server = Server::start(Config::default()).await.expect("start");
    let mut good = Raw::connect(&server.endpoint()).await;
    let refused = timeout(SOON, connect_rustls(&server.endpoint(), DOMAIN, &made)).await.expect("in time");
    refused.expect_err("a TLS client on a plain port");
    assert_eq!(ask(&mut good, versions()).await.error_code, ErrorCode::None);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_stalls_holds_up_nobody_and_is_cut() {
    let (_folder, made) = make_certificates();
    let tls = Tls::load(&made.server.certificate, &made.server.key, None).expect("load");
    let forever = Duration::from_secs(3600);
    let config = |limit| Config { tls: Some(tls.clone().with_handshake_limit(limit)), ..Config::default() };

    let server = Server::start(config(forever)).await.expect("start");
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut socket = TcpStream::connect(server.endpoint()).await.expect("connect");
        socket.write_all(&[0x16, 0x03, 0x01]).await.expect("send");
        stalled.push(socket);
    }
    let mut good = Raw::over(connect_rustls(&server.endpoint(), DOMAIN, &made).await.expect("connect"));
    assert_eq!(ask(&mut good, versions()).await.error_code, ErrorCode::None);
    // Nor do they hold up the end.
    timeout(SOON, server.shutdown()).await.expect("in time");

    let server = Server::start(config(Duration::from_millis(50))).await.expect("start");
    let mut socket = TcpStream::connect(server.endpoint()).await.expect("connect");
    socket.write_all(&[0x16, 0x03, 0x01]).await.expect("send");
    let mut received = Vec::new();
    // Whether the end is abrupt does not matter.
    let _ = timeout(SOON, socket.read_to_end(&mut received)).await.expect("cut");
    assert!(received.is_empty());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_at_a_client_that_reads_late_and_ends_with_a_goodbye() {
    let (_folder, made) = make_certificates();
    let server = start(&made, None).await;
    // Nobody reads before everything is asked.
    let stream = connect_rustls(&server.endpoint(), DOMAIN, &made).await.expect("connect");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let request = crate::common::frame_of(versions());
    let requests = 20_000;
    let asking = tokio::spawn(async move {
        for _ in 0..requests {
            writer.write_all(&request).await.expect("send");
        }
        writer.flush().await.expect("flush");
        writer
    });
    let writer = timeout(SOON, asking).await.expect("in time").expect("sent");
    let mut answer = [0; 4];
    for _ in 0..requests {
        timeout(SOON, reader.read_exact(&mut answer)).await.expect("in time").expect("an answer");
        let mut body = vec![0; u32::from_be_bytes(answer) as usize];
        timeout(SOON, reader.read_exact(&mut body)).await.expect("in time").expect("an answer");
    }
    server.close_connections();
    let mut rest = Vec::new();
    timeout(SOON, reader.read_to_end(&mut rest)).await.expect("in time").expect("a clean end");
    assert!(rest.is_empty());
    drop(writer);
    server.shutdown().await;
}

#[test]
fn an_authority_of_several_clients_may_be_a_list() {
    let (folder, made) = make_certificates();
    let other =
        CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate().expect("a key"));
    let list = folder.path().join("list.crt");
    let first = fs::read_to_string(&made.authority.certificate).expect("read");
    fs::write(&list, first + &other.expect("an issuer").pem()).expect("write");
    Tls::load(&made.server.certificate, &made.server.key, Some(&list)).expect("load");
}
