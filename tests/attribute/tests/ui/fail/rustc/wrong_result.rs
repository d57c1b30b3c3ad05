use std::fmt::Error;
use std::num::ParseIntError;

#[delouse::main]
async fn nothing_declared() {
    let port: u16 = "7132".parse()?;
    println!("{port}");
}

#[delouse::main]
async fn another_error() -> Result<(), Error> {
    let port: u16 = "7132".parse()?;
    println!("{port}");
    Ok(())
}

#[delouse::main]
async fn question_mark_last() -> Result<u16, Error> {
    "7132".parse::<u16>()?
}

#[delouse::main]
async fn no_result() -> Result<(), ParseIntError> {
    println!("nothing returned");
}

#[delouse::main]
async fn another_result() -> Result<(), ParseIntError> {
    println!("something else returned");
    7132
}

#[delouse::main]
async fn early_return() -> Result<(), ParseIntError> {
    if true {
        return Ok(7132);
    }
    Ok(())
}

#[delouse::main]
async fn semicolon() -> Result<(), ParseIntError> {
    Ok(());
}

#[delouse::main]
async fn never() -> ! {
    println!("over");
}

#[delouse::main]
async fn opaque() -> impl Iterator<Item = u8> {
    7132
}

#[delouse::main]
async fn empty() -> u16 {}

fn main() {}
