//! `error_template_…`: an operator's own bodies for errors, and the files in which they stand.

use std::fs;

use crate::harness::{Blueprint, Gateway, Origin, Request, one_service, wait_until};

const TEMPLATES: &str = "
    error_template_html: errors/page.html
    error_template_json: errors/body.json
    error_template_plain: errors/text.txt
    error_template_xml: errors/body.xml
";

/// A gateway that knows one path, with templates in a folder beside its file.
fn start() -> (Gateway, Origin) {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new(TEMPLATES);
    let folder = blueprint.folder().join("errors");
    fs::create_dir(&folder).expect("a folder");
    for (name, text) in [
        (
            "page.html",
            "<style>p {width: 100%;}</style><p>%s</p><i>%s</i>",
        ),
        ("body.json", "{\"error\": \"%s\", \"id\": \"%s\"}"),
        ("text.txt", "sorry: %s (%s)\n"),
        ("body.xml", "<e m=\"%s\" i=\"%s\"/>"),
    ] {
        fs::write(folder.join(name), text).expect("a template");
    }
    let yaml = one_service(&origin).replace("paths: [/]", "paths: [/known]");
    (blueprint.start(&yaml), origin)
}

#[test]
fn an_error_has_the_body_of_its_template() {
    let (gateway, _origin) = start();
    let message = "no Route matched with those values";
    for (accept, content_type, around) in [
        (
            "text/html",
            "text/html; charset=utf-8",
            ["<style>p {width: 100%;}</style><p>", "</p><i>", "</i>"],
        ),
        (
            "application/json",
            "application/json; charset=utf-8",
            ["{\"error\": \"", "\", \"id\": \"", "\"}"],
        ),
        (
            "text/plain",
            "text/plain; charset=utf-8",
            ["sorry: ", " (", ")\n"],
        ),
        (
            "application/xml",
            "application/xml; charset=utf-8",
            ["<e m=\"", "\" i=\"", "\"/>"],
        ),
    ] {
        let response = gateway.send(&Request::get("/nowhere").header("Accept", accept));
        let id = response
            .header("x-kong-request-id")
            .expect("an id")
            .to_owned();
        let [before, between, after] = around;
        assert_eq!(response.status, 404);
        assert_eq!(response.header("content-type"), Some(content_type));
        assert_eq!(
            response.text(),
            format!("{before}{message}{between}{id}{after}")
        );
    }
}

#[test]
fn what_never_became_a_request_gets_the_template_too() {
    let (gateway, _origin) = start();
    let mut client = gateway.connect();
    client.write("GET / HTTP/1.1\r\n\r\n").expect("written");
    let response = client.read_response().expect("an answer");
    assert_eq!(response.status, 400);
    assert!(
        response.text().starts_with("sorry: Bad request ("),
        "{}",
        response.text()
    );
}

#[test]
fn a_template_that_changes_is_live_without_a_change_of_the_configuration() {
    let (gateway, _origin) = start();
    let file = gateway.folder().join("errors/text.txt");

    gateway.changing_configuration(|| fs::write(&file, "alas, %s [%s]").expect("written"));

    let response = gateway.send(&Request::get("/nowhere").header("Accept", "text/plain"));
    assert!(
        response.text().starts_with("alas, no Route"),
        "{}",
        response.text()
    );
}

#[test]
fn a_template_that_is_broken_or_gone_refuses_the_change_and_the_old_one_serves() {
    let (gateway, _origin) = start();
    let file = gateway.folder().join("errors/text.txt");
    let plain = || {
        let response = gateway.send(&Request::get("/nowhere").header("Accept", "text/plain"));
        response.text()
    };

    gateway.refusing_configuration(|| fs::write(&file, "only %s").expect("written"));
    gateway.wait_for_log("needs `%s` twice");
    gateway.wait_for_log("gateway.error_template_plain");
    assert!(plain().starts_with("sorry: "), "{}", plain());

    gateway.refusing_configuration(|| fs::remove_file(&file).expect("removed"));
    gateway.wait_for_log("cannot be read: no such file");
    assert!(plain().starts_with("sorry: "), "{}", plain());

    fs::write(&file, "back: %s %s").expect("written");
    wait_until("the template that came back", || {
        plain().starts_with("back: ")
    });
}
