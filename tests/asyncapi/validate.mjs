// node validate.mjs FILE: what the reference parser of AsyncAPI finds wrong, a line each; exit code 1 if anything is.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const ERROR = 0;
const WARNING = 1;

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const found = diagnostics.filter(({ severity }) => severity === ERROR || severity === WARNING);
for (const { path, message } of found) console.error(`${path.join(".")}: ${message}`);
if (document === undefined || found.length > 0) process.exit(1);
console.log(JSON.stringify({
  channels: document.channels().all().map((channel) => channel.address()),
  messages: document.components().messages().all().map((message) => message.name()),
}));
