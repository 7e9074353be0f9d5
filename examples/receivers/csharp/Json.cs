using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.Serialization.Json;
using System.Text;
using System.Xml;

/// <summary>
/// Reads a verified body by the JSON reader that both Mono and .NET have. On .NET alone,
/// System.Text.Json is what you would use.
/// </summary>
public static class Json
{
    /// <summary>One event with the message's id, or the members of a batch with theirs.</summary>
    /// <exception cref="FormatException">No JSON, or a member without an id.</exception>
    public static List<Event> Events(string id, byte[] body)
    {
        var document = new XmlDocument { XmlResolver = null };
        try
        {
            using (var reader = JsonReaderWriterFactory.CreateJsonReader(body, XmlDictionaryReaderQuotas.Max))
                document.Load(reader);
        }
        catch (Exception error) when (error is XmlException || error is ArgumentException)
        {
            throw new FormatException("not JSON", error);
        }
        if (document.DocumentElement == null) throw new FormatException("empty");
        var events = new List<Event>();
        if (document.DocumentElement.GetAttribute("type") != "array")
        {
            events.Add(new Event(id, Encoding.UTF8.GetString(body)));
            return events;
        }
        foreach (XmlElement member in document.DocumentElement)
        {
            XmlElement memberId = member["id"];
            if (memberId == null || memberId.GetAttribute("type") != "string")
                throw new FormatException("a member without an id");
            events.Add(new Event(memberId.InnerText, Text(member)));
        }
        return events;
    }

    /// <summary>A list of texts as {"processed": […]}.</summary>
    public static byte[] Processed(string[] ids)
    {
        using (var stream = new MemoryStream())
        {
            using (var writer = JsonReaderWriterFactory.CreateJsonWriter(stream))
            {
                writer.WriteStartElement("root");
                writer.WriteAttributeString("type", "object");
                writer.WriteStartElement("processed");
                writer.WriteAttributeString("type", "array");
                foreach (string id in ids) writer.WriteElementString("item", id);
                writer.WriteEndElement();
                writer.WriteEndElement();
            }
            return stream.ToArray();
        }
    }

    private static string Text(XmlElement member)
    {
        using (var stream = new MemoryStream())
        {
            using (var writer = JsonReaderWriterFactory.CreateJsonWriter(stream))
            {
                writer.WriteStartElement("root");
                writer.WriteAttributeString("type", member.GetAttribute("type"));
                member.WriteContentTo(writer);
                writer.WriteEndElement();
            }
            return Encoding.UTF8.GetString(stream.ToArray());
        }
    }
}
