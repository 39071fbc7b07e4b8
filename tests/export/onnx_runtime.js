// In each FOLDER of the arguments: runs model.onnx on images.f32 with onnxruntime-node and compares with
// logits.f32. Prints the largest difference; ends with 1 where it is above 1e-5 (of the largest logit).
const fs = require('fs')
const ort = require('onnxruntime-node')

const floats = (path) => {
  const bytes = fs.readFileSync(path)
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
}

async function check (folder) {
  const session = await ort.InferenceSession.create(`${folder}/model.onnx`)
  const images = floats(`${folder}/images.f32`)
  const wanted = floats(`${folder}/logits.f32`)
  const [channels, height, width, classes] = fs.readFileSync(`${folder}/shape`, 'utf8').split(' ').map(Number)
  const count = wanted.length / classes
  const feed = { images: new ort.Tensor('float32', images, [count, channels, height, width]) }
  const { logits } = await session.run(feed)
  if (String(logits.dims) !== `${count},${classes}`) throw new Error(`logits are [${logits.dims}]`)
  let most = 0
  let size = 1
  for (let i = 0; i < wanted.length; i++) {
    most = Math.max(most, Math.abs(wanted[i] - logits.data[i]))
    size = Math.max(size, Math.abs(wanted[i]))
  }
  const name = folder.split('/').pop()
  console.log(`# ${name}: largest difference of ${wanted.length} logits, up to ${size.toFixed(1)}: ${most.toExponential(2)}`)
  if (!(most <= 1e-5 * size)) throw new Error(`${name}: logits differ by ${most}`)
}

async function main (folders) {
  for (const folder of folders) await check(folder)
}

main(process.argv.slice(2)).catch((error) => {
  console.log(String(error))
  process.exit(1)
})
