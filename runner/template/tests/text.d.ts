// The build takes tables in as text.
declare module '*.jsonl' {
  const text: string;
  export default text;
}
