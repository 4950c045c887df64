//! Opens a log that another process wrote, and prints what is in it as one line of JSON.

use trilith::cli::Failure;

use crate::engines::Subject;

pub fn run(subject: &Subject) -> Result<(), Failure> {
    let counted = subject.engine.count(&subject.directory, subject.threads, &subject.settings)?;
    println!("{}", serde_json::to_string(&counted).expect("numbers are JSON"));
    Ok(())
}
