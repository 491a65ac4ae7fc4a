//! What the README says is what the program says. To write the table anew: `README_UPDATE=1 cargo test --test readme`.

use sardonyx::recipe::{render_markdown, support_table};
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- sardonyx ops -->\n";
const END: &str = "<!-- end of sardonyx ops -->\n";

#[test]
fn the_table_of_operators_is_generated() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the README marks where the table begins");
    let (table, tail) = rest.split_once(END).expect("the README marks where the table ends");
    let want = render_markdown(&support_table());
    if std::env::var_os("README_UPDATE").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{want}{END}{tail}")).unwrap();
    } else {
        assert!(table == want, "the README's table of operators is out of date");
    }
}
