// Loaded by Node and by the browser's page, so that neither has to send the other the data of a test.
function noise(seed, size) {
  const words = new Uint32Array(Math.ceil(size / 4))
  let state = (seed * 2654435761 + 1) >>> 0 || 1
  for (let index = 0; index < words.length; index += 1) {
    // Marsaglia's xorshift32.
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[index] = state
  }
  return new Uint8Array(words.buffer, 0, size)
}
