// What AsyncAPI's own parser says of each document: one line of JSON for each file named on the command line. Of an
// Avro schema it sees the shape alone; that its names resolve as well is asked of the Avro plugin, which it asks for AsyncAPI 2 only.
import { readFileSync } from 'node:fs';
import { AvroSchemaParser } from '@asyncapi/avro-schema-parser';
import { Parser } from '@asyncapi/parser';

const parser = new Parser();
const avro = AvroSchemaParser();
for (const file of process.argv.slice(2)) {
  const text = readFileSync(file, 'utf8');
  const { document, diagnostics } = await parser.parse(text);
  const problems = diagnostics.map((each) => `${each.path.join('.')}: ${each.message}`);
  for (const [name, message] of Object.entries(JSON.parse(text).components.messages)) {
    const path = ['components', 'messages', name, 'payload', 'schema'];
    const found = await avro.validate({ data: message.payload.schema, path });
    problems.push(...found.map((each) => `${path.join('.')}: ${each.message}`));
  }
  const found = {
    problems,
    version: document?.version(),
    channels: document?.channels().all().length,
    operations: document?.operations().all().length,
    messages: document?.components().messages().all().length,
  };
  console.log(JSON.stringify(found));
}
