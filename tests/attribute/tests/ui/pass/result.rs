use std::process::ExitCode;

#[delouse::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let port: u16 = "7132".parse()?;
    assert_eq!(port, 7132);
    Ok(ExitCode::SUCCESS)
}
