import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Sends 1,000 keys to a topic of 12 partitions and prints, as JSON, the partition that the Java client chose for each. */
class Partitions {
    static final String TOPIC = "partitions";
    static final int COUNT = 12;

    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", args[0]);
        try (Admin admin = Admin.create(config)) {
            admin.createTopics(List.of(new NewTopic(TOPIC, COUNT, (short) 1))).all().get();
        }
        List<String> lines = new ArrayList<>();
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<byte[]> keys = keys();
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (byte[] key : keys) sent.add(producer.send(new ProducerRecord<>(TOPIC, key, new byte[0])));
            for (int i = 0; i < keys.size(); i++)
                lines.add(String.format("{\"key\":\"%s\",\"partition\":%d}",
                    Base64.getEncoder().encodeToString(keys.get(i)), sent.get(i).get().partition()));
        }
        System.out.printf("{\"partitions\":%d,\"keys\":[%n%s%n]}%n", COUNT, String.join(",\n", lines));
    }

    /** The empty key, job names, Cyrillic, Devanagari and Chinese words, emoji, and random bytes of every length to 64. */
    static List<byte[]> keys() {
        Random random = new Random(1);
        String[] texts = {
            "batches/%08x", "\u0437\u0430\u0434\u0430\u043d\u0438\u0435-%d", "\u0915\u093e\u0930\u094d\u092f-%d", "\u4efb\u52a1-%d", "\ud83d\ude80\ud83d\udc69\u200d\ud83d\udcbb-%d",
        };
        List<byte[]> keys = new ArrayList<>(List.of(new byte[0]));
        for (int i = 1; i < 1000; i++) {
            byte[] key = new byte[i / 2 % 64 + 1];
            random.nextBytes(key);
            if (i % 2 == 0)
                key = String.format(Locale.ROOT, texts[i / 2 % texts.length], random.nextInt(1 << 30)).getBytes(StandardCharsets.UTF_8);
            keys.add(key);
        }
        return keys;
    }
}
