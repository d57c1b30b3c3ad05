// How the program was built, and how complete the answers are with that.
import { useEffect, useState } from "preact/hooks";
import { getText } from "./api";
import { Failure } from "./text";

export function BinaryView() {
  const [text, setText] = useState<string>();
  const [error, setError] = useState<unknown>();
  useEffect(() => {
    getText("/elf/info?format=text").then(setText, setError);
  }, []);
  if (error !== undefined) return <Failure error={error} />;
  if (text === undefined) return <p role="status">Reading the binary …</p>;
  return <pre tabIndex={0}>{text}</pre>;
}
