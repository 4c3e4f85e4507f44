//! What is written about the product is true of it: every YAML block of the documentation loads, and every
//! relative link leads somewhere. What is generated is checked in `generated.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::harness::{check, tollgate};

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One page, by its path relative to the repository.
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The markdown files of the repository's top folder and, at any depth, of `docs`.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = entries(&root());
    paths.retain(|path| path.is_file());
    collect(&root().join("docs"), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let read = |path: PathBuf| Page {
        name: relative(&path),
        text: fs::read_to_string(&path).expect("a readable page"),
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() {
            collect(&path, paths);
        } else {
            paths.push(path);
        }
    }
}

pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a readable folder");
    let path = |entry: std::io::Result<fs::DirEntry>| entry.expect("a readable entry").path();
    let mut paths: Vec<PathBuf> = entries.map(path).collect();
    paths.sort();
    paths
}

fn relative(path: &Path) -> String {
    let inside = path
        .strip_prefix(root())
        .expect("a path inside the repository");
    inside.to_string_lossy().replace('\\', "/")
}

/// The contents of the fenced blocks whose language is `language`, each with the line it begins in.
pub(crate) fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, usize, String)> = None;
    for (line, number) in text.lines().zip(1..) {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(found), None) => {
                open = Some((found.trim() == language, number + 1, String::new()));
            }
            (Some(_), Some((true, start, block))) => blocks.push((start, block)),
            (None, Some((wanted, start, mut block))) => {
                block.push_str(line);
                block.push('\n');
                open = Some((wanted, start, block));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    blocks
}

/// A page without its fenced blocks, in which `[…](…)` is no link.
fn prose(text: &str) -> String {
    let mut inside = false;
    let outside = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// What a page links to, but for addresses with a scheme: a file relative to the page, and an anchor.
fn links(text: &str) -> Vec<(String, Option<String>)> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    let prose = prose(text);
    let targets = link.captures_iter(&prose).map(|found| found[1].to_owned());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| match target.split_once('#') {
            Some((file, anchor)) => (file.to_owned(), Some(anchor.to_owned())),
            None => (target, None),
        })
        .collect()
}

/// The anchors of a page: its headings as GitHub slugs them, and those it names by itself.
fn anchors(text: &str) -> Vec<String> {
    let named = Regex::new(r#"<a id="([^"]+)">"#).expect("a pattern");
    let heading = Regex::new(r"(?m)^#{1,6} (.+)$").expect("a pattern");
    let prose = prose(text);
    let slugs = heading.captures_iter(&prose).map(|found| slug(&found[1]));
    let named = named.captures_iter(&prose).map(|found| found[1].to_owned());
    slugs.chain(named).collect()
}

fn slug(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower
        .chars()
        .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'));
    kept.map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

#[test]
fn every_yaml_block_of_the_documentation_is_a_usable_configuration() {
    let mut checked = 0;
    for page in pages() {
        for (line, yaml) in blocks(&page.text, "yaml") {
            let outcome = check(&yaml);
            assert_eq!(
                outcome.code,
                Some(0),
                "{}, the block in line {line}:\n{}",
                page.name,
                outcome.stderr
            );
            checked += 1;
        }
    }
    assert!(checked > 0, "the documentation has no YAML block");
}

#[test]
fn the_example_configuration_is_usable_with_its_fragments() {
    let outcome = tollgate(&root(), &["check", "--config", "config/gateway.yaml"]);

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
}

#[test]
fn every_file_of_conf_d_is_usable_together_with_the_example() {
    let main = fs::read_to_string(root().join("config/gateway.yaml")).expect("the example");
    assert!(
        main.contains("conf_d: ../conf.d"),
        "the example does not read conf.d"
    );
    let fragments = entries(&root().join("conf.d"));
    assert!(!fragments.is_empty(), "conf.d is empty");
    for fragment in fragments {
        let read = fragment
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        assert!(read, "{} is not read", relative(&fragment));
    }
}

#[test]
fn every_relative_link_leads_to_a_file_and_an_anchor_that_exist() {
    let mut broken = Vec::new();
    for page in pages() {
        let path = root().join(&page.name);
        let folder = path.parent().expect("a page is in a folder");
        for (file, anchor) in links(&page.text) {
            let target = if file.is_empty() {
                path.clone()
            } else {
                folder.join(&file)
            };
            if !target.exists() {
                broken.push(format!("{}: {file}", page.name));
            } else if let Some(anchor) = anchor.filter(|_| target.is_file()) {
                let text = fs::read_to_string(&target).expect("a readable page");
                if !anchors(&text).contains(&anchor) {
                    broken.push(format!("{}: {file}#{anchor}", page.name));
                }
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn the_index_leads_to_every_page_of_the_documentation() {
    let all = pages();
    let index = all
        .iter()
        .find(|page| page.name == "docs/README.md")
        .expect("an index");
    let linked: Vec<PathBuf> = links(&index.text)
        .into_iter()
        .filter_map(|(file, _)| root().join("docs").join(file).canonicalize().ok())
        .collect();
    let missing: Vec<&str> = all
        .iter()
        .filter(|page| page.name.starts_with("docs/") && page.name != index.name)
        .filter(|page| {
            let path = root().join(&page.name).canonicalize();
            !linked.contains(&path.expect("a page that exists"))
        })
        .map(|page| page.name.as_str())
        .collect();

    assert!(missing.is_empty(), "not in docs/README.md: {missing:?}");
}

#[test]
fn blocks_are_found_by_their_language() {
    let text = "a\n```yaml\nx: 1\n```\n```text\ny\n```\n```yaml\nz: 2\n```\n";

    assert_eq!(
        blocks(text, "yaml"),
        [(3, "x: 1\n".to_owned()), (9, "z: 2\n".to_owned())]
    );
}

#[test]
fn links_in_code_are_no_links() {
    let text = "[a](b.md#c)\n```text\n[d](e.md)\n```\n[f](https://g.test)\n";

    assert_eq!(links(text), [("b.md".to_owned(), Some("c".to_owned()))]);
}

#[test]
fn headings_are_anchors() {
    assert_eq!(
        anchors("## The path that is sent\n<a id=\"x\"></a>\n"),
        ["the-path-that-is-sent", "x"]
    );
}
