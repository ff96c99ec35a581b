// Metadata as lines that people edit, "year: 2020", and back. Pure: knows neither page nor server.

const LINE = /^\s*("(?:[^"\\]|\\.)*"|[^":][^:]*?)\s*:\s*(.*?)\s*$/;

/** One line a field. A string is quoted only where it would be read as something else. */
export const lines = (metadata) =>
  Object.entries(metadata ?? {})
    .map(([name, value]) => `${plain(name) && !name.includes(":") ? name : JSON.stringify(name)}: ${shown(value)}`)
    .join("\n");

/** The object that lines stand for; throws an Error that names the first line that is none. */
export function parsed(text) {
  const fields = {};
  for (const line of text.split("\n").filter((l) => l.trim())) {
    const found = LINE.exec(line);
    if (!found) throw new Error(`“${line.trim()}” is no metadata: write a name, a colon and a value, such as year: 2020`);
    const [, name, value] = found;
    fields[name.startsWith('"') ? JSON.parse(name) : name] = read(value);
  }
  return fields;
}

const plain = (text) => text.trim() === text && text !== "" && !/["\n\r]/.test(text);
const shown = (value) => (typeof value === "string" && plain(value) && read(value) === value ? value : JSON.stringify(value));

function read(value) {
  try {
    const meant = JSON.parse(value);
    return meant === null || typeof meant !== "object" ? meant : value;
  } catch {
    return value;
  }
}
