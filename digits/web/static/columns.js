// Finds the columns of a table of numbers by the places of its words, also if the page is turned a little or was
// photographed at an angle.

const SLANT = 0.27; // the largest slant of a column, dx / dy: 15 degrees
const STEPS = 60; // slants that are tried to either side
const BINS = 400; // in which words are counted

// lines: of words, {left, right, y}. Returns, for each line, the indices of its words' columns from left to right.
export function columnsOf(lines) {
  const slant = slantOf(lines.flat());
  const words = lines.flatMap((line, i) =>
    line.map(({ left, right, y }, k) => ({ i, k, left: left - slant * y, right: right - slant * y })),
  );
  const found = lines.map(() => []);
  for (const [column, part] of parts(words).entries()) for (const { i, k } of part) found[i][k] = column;
  return found;
}

// the slant at which most words stand exactly one below another
function slantOf(words) {
  const far = Math.max(1, ...words.flatMap(({ right, y }) => [right, y]));
  let [best, most] = [0, 0];
  for (let step = -STEPS; step <= STEPS; step++) {
    const slant = (step / STEPS) * SLANT;
    // straightened, x is from -SLANT to 1 + SLANT times far
    const counts = new Uint16Array(BINS * 2);
    for (const { left, right, y } of words) {
      const bin = (x) => Math.round(((x - slant * y) / far + SLANT) * BINS);
      for (let at = bin(left); at < bin(right); at++) counts[at]++;
    }
    // words of a few lines could stand exactly one below another by chance, so a small slant is more likely
    const score = counts.reduce((sum, count) => sum + count ** 2, 0) * (1 - Math.abs(slant));
    if (score > most) [best, most] = [slant, score];
  }
  return best;
}

const middle = ({ left, right }) => (left + right) / 2;

// the words of each column
function parts(words) {
  const columns = [];
  let end = -Infinity;
  for (const word of words.toSorted((a, b) => a.left - b.left)) {
    if (word.left >= end) columns.push([]);
    columns.at(-1).push(word);
    end = Math.max(end, word.right);
  }
  return columns.flatMap(divided);
}

// words without a gap between them, divided where this parts the words of more lines than it cuts words. So a word that
// is wider than its column does not join two columns, and one that was read in two parts, such as "10 0", makes none
function divided(words) {
  const spans = []; // of each line, the middles of its first and last word
  for (const word of words) {
    const [first, last] = spans[word.i] ?? [Infinity, -Infinity];
    spans[word.i] = [Math.min(first, middle(word)), Math.max(last, middle(word))];
  }
  let [best, most] = [null, 0];
  for (const { left: at } of words) {
    const parted = spans.filter(([first, last]) => first < at && at <= last).length;
    const cut = words.filter(({ left, right }) => left < at && at < right).length;
    if (parted - cut > most) [best, most] = [at, parted - cut];
  }
  if (best === null) return [words];
  const before = words.filter((word) => middle(word) < best);
  return [before, words.filter((word) => !before.includes(word))].flatMap(parts);
}
